//! The environment variables of a call.

use std::{env, path::Path};

use crate::call::Environment;

/// Reads them; what is not text is shown with marks in it, and no check lets it pass.
pub(crate) fn read() -> Environment {
    let text = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let called = env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Environment {
        name,
        command: text("CNI_COMMAND"),
        container: text("CNI_CONTAINERID"),
        netns: text("CNI_NETNS"),
        ifname: text("CNI_IFNAME"),
        args: text("CNI_ARGS"),
        path: text("CNI_PATH"),
    }
}
