//! Images without a registry: a folder becomes a tar, and containerd reads the tar.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Containerd;
use crate::{command, deadline};

/// The harness' own image: busybox, with a `/pause` that holds a pod's namespaces.
pub const BOX: &str = "docker.io/local/box:1";

/// The script that makes an image of a folder: the one users get.
const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/daemonset/archive.sh");

/// Makes an image of a folder and gives it to a containerd.
fn import_folder(host: &Containerd, root: &Path, name: &str, entrypoint: &str) -> Result<()> {
    let tar = host.home().join("image.tar");
    let mut archive = Command::new("sh");
    archive.arg(ARCHIVE).arg(root).arg(name).arg(&tar).arg(entrypoint);
    command::run(&mut archive, "", Duration::from_secs(60))?.success("archive.sh")?;
    let imported = import(host, &tar, name);
    std::fs::remove_file(&tar)?;
    imported
}

/// Gives an image in a tar to a containerd, and waits until pods can be made of it.
///
/// # Errors
/// When containerd does not take it.
pub fn import(host: &Containerd, tar: &Path, name: &str) -> Result<()> {
    let tar = tar.to_str().context("a path that is not text")?;
    host.ctr(&["images", "import", "--snapshotter", "native", tar])?;
    let known = || host.cri().has_image(name);
    deadline::until_true(&format!("image {name}"), Duration::from_secs(10), known).map(drop)
}

/// Makes and imports [`BOX`].
pub(super) fn import_box(host: &Containerd) -> Result<()> {
    let root = host.home().join("box");
    let bin = root.join("bin");
    std::fs::create_dir_all(&bin)?;
    for folder in ["dev", "proc", "sys", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    std::fs::copy(
        busybox.context("no busybox: tests/setup.sh installs busybox-static")?,
        bin.join("busybox"),
    )?;
    let applets = ["sh", "sleep", "ping", "nc", "httpd", "cat", "mkdir"];
    for applet in applets {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let pause = root.join("pause");
    std::fs::write(&pause, "#!/bin/sh\nexec sleep 2147483647\n")?;
    std::fs::set_permissions(&pause, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    import_folder(host, &root, BOX, "/pause")
}
