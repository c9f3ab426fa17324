//! Installing into directories of a test.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::io::testing::Directory;

struct Bench {
    dir: Directory,
    install: CniInstall,
}

impl Bench {
    fn new() -> Self {
        let dir = Directory::new();
        let from = dir.path().join("shipped");
        fs::write(&from, "program").unwrap();
        let places =
            CniPlaces { bin_dir: dir.path().join("opt/bin"), conf_dir: dir.path().join("etc/net.d") };
        Self { install: CniInstall { from: Some(from), places }, dir }
    }

    fn install(&self) -> Vec<String> {
        set_up(&self.install, Path::new("/run/weft/weft.sock")).unwrap()
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.install.places.bin_dir.join(name)
    }

    fn conf(&self) -> PathBuf {
        self.install.places.conf_dir.join(FILE)
    }

    fn files(&self) -> usize {
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        count(&self.install.places.bin_dir) + count(&self.install.places.conf_dir)
    }
}

#[test]
fn an_installation_is_complete_readable_repeatable_and_goes_again() {
    let bench = Bench::new();
    bench.install();
    assert_eq!(fs::read_to_string(bench.bin("weft-net")).unwrap(), "program");
    assert_eq!(
        fs::metadata(bench.bin("weft-net")).unwrap().ino(),
        fs::metadata(bench.bin("weft-ipam")).unwrap().ino(),
        "one file with two names"
    );
    assert_eq!(fs::metadata(bench.bin("weft-net")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(bench.conf()).unwrap().mode() & 0o777, 0o644);
    fs::write(bench.dir.path().join("shipped"), "newer").unwrap();
    let lines = bench.install();
    assert!(lines[2].ends_with("is as it should be"), "{lines:?}");
    assert_eq!(fs::read_to_string(bench.bin("weft-ipam")).unwrap(), "newer");
    assert_eq!(bench.files(), 3, "nothing is left beside");
    assert_eq!(take_away(&bench.install.places).unwrap().len(), 3);
    assert_eq!(bench.files(), 0);
    assert!(take_away(&bench.install.places).unwrap().is_empty(), "again is fine");
}

#[test]
fn other_plugins_are_in_the_chain_only_where_they_exist() {
    let bench = Bench::new();
    bench.install();
    assert!(!fs::read_to_string(bench.conf()).unwrap().contains("portmap"));
    fs::write(bench.bin("portmap"), "").unwrap();
    let lines = bench.install();
    assert!(lines[2].starts_with("brought"), "{lines:?}");
    assert!(fs::read_to_string(bench.conf()).unwrap().contains("portmap"));
}

#[test]
fn a_configuration_that_was_changed_is_neither_replaced_nor_removed() {
    let bench = Bench::new();
    bench.install();
    fs::write(bench.conf(), "{}").unwrap();
    assert!(bench.install()[2].contains("left"));
    assert!(take_away(&bench.install.places).unwrap()[0].contains("left"));
    assert_eq!(fs::read_to_string(bench.conf()).unwrap(), "{}");
    fs::remove_file(bench.conf()).unwrap();
    let target = bench.dir.path().join("elsewhere");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, bench.conf()).unwrap();
    assert!(bench.install()[2].contains("symbolic link"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn a_program_that_runs_is_replaced_all_the_same() {
    let bench = Bench::new();
    bench.install();
    fs::copy("/proc/self/exe", bench.bin("weft-net")).unwrap();
    // A file that is being executed cannot be opened for writing; a rename does not open it.
    let _running = File::open(bench.bin("weft-net")).unwrap();
    bench.install();
    assert_eq!(fs::read_to_string(bench.bin("weft-net")).unwrap(), "program");
}

#[test]
fn without_the_plugin_nothing_is_written() {
    let mut bench = Bench::new();
    bench.install.from = Some(bench.dir.path().join("missing"));
    assert!(set_up(&bench.install, Path::new("/run/weft/weft.sock")).is_err());
    assert!(!bench.conf().exists());
    assert_eq!(bench.files(), 0);
}
