//! Ping-pong over UDP with both ends pinned: where the scheduler happens to put them alone moves the figure threefold.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::deadline;

use super::{Times, machine};
use crate::stage::Stage;

const PORT: u16 = 7201;
const SIZE: usize = 64;
/// Round trips before counting begins: caches, neighbours, learned addresses.
const WARM: usize = 50;
/// What takes longer than this is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// Ping-pong for this long, the ends on two cores or on one.
pub(super) fn run(stage: &Stage, two_cores: bool, time: Duration) -> Result<Times> {
    let (from, to) = (&stage.containers[0], &stage.containers[1]);
    let processors = machine::processors()?;
    let near = *processors.first().context("no processor")?;
    let far = if two_cores { *processors.get(1).context("there is only one core")? } else { near };
    let socket = to.netns().run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let echo = std::thread::spawn(move || answer(&socket, far, &told));
    let asked = from.netns().run(|| ask(to.address(), near, time));
    stop.store(true, Ordering::Release);
    let answered = echo.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    answered?;
    asked
}

fn answer(socket: &UdpSocket, processor: usize, stop: &AtomicBool) -> Result<()> {
    machine::pin(processor)?;
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Acquire) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}

fn ask(to: Ipv4Addr, processor: usize, time: Duration) -> Result<Times> {
    machine::pin(processor)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, PORT)).context("no route")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut payload, mut buffer) = ([0; SIZE], [0; 2048]);
    let (mut times, mut lost) = (Vec::new(), 0_usize);
    let begin = deadline::now();
    for number in 0_u64.. {
        let asked = deadline::now();
        if asked - begin >= time {
            break;
        }
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let _ = socket.send(&payload);
        match hear(&socket, &payload, &mut buffer) {
            true => times.push(asked.elapsed()),
            false => lost += 1,
        }
    }
    ensure!(times.len() > 2 * WARM, "only {} answers, {lost} lost", times.len());
    ensure!(lost * 100 <= times.len(), "{lost} lost of {}", times.len() + lost);
    Ok(Times::new(times.split_off(WARM)))
}

/// Waits for the answer to this question; older ones are passed over.
fn hear(socket: &UdpSocket, payload: &[u8], buffer: &mut [u8]) -> bool {
    loop {
        match socket.recv(buffer) {
            Ok(length) if buffer[..length] == *payload => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
