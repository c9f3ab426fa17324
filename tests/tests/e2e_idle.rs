//! What a router costs when nothing happens. The figures are promised for the release binary; a debug build is given
//! more room and measured all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{deadline, host, scenario_alone};

#[test]
fn an_idle_router_in_a_mesh_of_three_uses_under_half_a_percent_of_a_core_and_24_mb() -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(10);
    let debug = host::binary()?.components().any(|part| part.as_os_str() == "debug");
    let (largest_share, largest_resident) = if debug { (0.03, 48_000_000) } else { (0.005, 24_000_000) };
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(3)?;
        for host in &mut hosts {
            host.set_secret("a secret of some length");
        }
        host::mesh(&mut hosts, &[])?;
        let mut c1 = fabric.container("c1")?;
        hosts[0].attach(&mut c1)?;
        // Joining is work; let it end, and the links go to their quiet pace.
        deadline::pause(Duration::from_secs(12));
        let before = hosts.iter().map(|host| host.running()?.processor_time()).collect::<Result<Vec<_>>>()?;
        let begin = deadline::now();
        deadline::pause(WATCHED);
        for (host, before) in hosts.iter().zip(before) {
            let used = host.running()?.processor_time()?.saturating_sub(before);
            let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
            let resident = host.running()?.resident_bytes()?;
            ensure!(share < largest_share, "{}: {:.2} % of a core", host.name(), share * 100.0);
            ensure!(resident < largest_resident, "{}: {resident} bytes resident", host.name());
        }
        Ok(())
    })
}
