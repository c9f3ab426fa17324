//! Where a test may end the process: only with the feature `faults`, never in a release.

/// Ends the process as `kill -9` does, if `WEFT_CNI_FAULT` names this step.
#[cfg(feature = "faults")]
pub(crate) fn reached(step: &str) {
    if std::env::var_os("WEFT_CNI_FAULT").is_some_and(|named| named == step) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "faults"))]
pub(crate) fn reached(_step: &str) {}
