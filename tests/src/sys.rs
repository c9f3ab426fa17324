//! The one unsafe corner of the harness: what must happen between fork and exec.
#![expect(unsafe_code, reason = "a child's last words before exec can only be said in pre_exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the kernel kill the child when the thread that spawns it ends, so that a killed test run leaves no router.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches only the calling process.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// How many clock ticks the kernel counts in a second of processor time.
pub(crate) fn clock_ticks() -> f64 {
    // SAFETY: sysconf reads a constant.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}
