//! The frame around every test: a clean stage before, the logs when it fails, nothing left after.

use std::sync::{Once, PoisonError, RwLock};

use anyhow::{Result, ensure};

use crate::fabric::{self, Fabric};
use crate::netns;

/// Held for reading by tests that share the machine, for writing by those that measure time.
static MACHINE: RwLock<()> = RwLock::new(());
static SWEPT: Once = Once::new();

/// Plays `body` on a fresh underlay; other scenarios may run beside it.
///
/// # Errors
/// What `body` returns, after the routers' logs have been printed.
pub fn scenario(body: impl FnOnce(&Fabric) -> Result<()>) -> Result<()> {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    play(body)
}

/// Plays `body` with no other scenario of this test file beside it: for what is measured in milliseconds.
///
/// # Errors
/// What `body` returns, after the routers' logs have been printed.
pub fn scenario_alone(body: impl FnOnce(&Fabric) -> Result<()>) -> Result<()> {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    play(body)
}

/// Plays `body` once for a program that is no test: without printing logs.
///
/// # Errors
/// What `body` returns.
pub fn perform(body: impl FnOnce(&Fabric) -> Result<()>) -> Result<()> {
    stand_on_clean_ground()?;
    body(&Fabric::new()?)
}

/// Removes everything this process has made, for an end by signal, where nothing is dropped.
pub fn abandon() {
    netns::sweep_own();
    fabric::sweep_own();
}

fn stand_on_clean_ground() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "real namespaces need root, or `unshare -Urnm`: see tests/as-root.sh"
    );
    SWEPT.call_once(|| {
        netns::sweep();
        fabric::sweep();
    });
    Ok(())
}

fn play(body: impl FnOnce(&Fabric) -> Result<()>) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "real namespaces need root, or `unshare -Urnm`: use `make test`"
    );
    SWEPT.call_once(netns::sweep);
    let fabric = Fabric::new()?;
    let printed = PrintLogs { fabric: &fabric };
    let result = body(&fabric);
    if result.is_err() {
        printed.print();
    }
    result
}

/// Prints the logs of a scenario that ends by a failed assertion.
struct PrintLogs<'a> {
    fabric: &'a Fabric,
}

impl PrintLogs<'_> {
    #[expect(clippy::print_stdout, reason = "the output of a failed test is read by people")]
    fn print(&self) {
        println!("{}", self.fabric.logs());
    }
}

impl Drop for PrintLogs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print();
        }
    }
}
