//! Every way a file can be wrong, one by one.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::io::testing::Directory;

/// A directory with two generations, "first" and "second".
fn two_generations() -> Directory {
    let dir = Directory::new();
    let (store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!(loaded, Loaded { bytes: None, note: None });
    store.save(b"first").unwrap();
    store.save(b"second").unwrap();
    dir
}

fn load(dir: &Directory) -> Loaded {
    Store::open(dir.path()).unwrap().1
}

#[test]
fn what_was_saved_is_loaded() {
    let dir = two_generations();
    assert_eq!(load(&dir), Loaded { bytes: Some(b"second".to_vec()), note: None });
    let (store, _) = Store::open(dir.path()).unwrap();
    store.save(b"").unwrap();
    drop(store);
    assert_eq!(load(&dir).bytes, Some(Vec::new()), "an empty snapshot is one");
    for name in [CURRENT, PREVIOUS, LOCK] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn cut_at_any_byte_the_generation_before_is_used() {
    let whole = seal(b"second");
    for length in 0..whole.len() {
        let dir = two_generations();
        fs::write(dir.path().join(CURRENT), &whole[..length]).unwrap();
        let loaded = load(&dir);
        assert_eq!(loaded.bytes.as_deref(), Some(&b"first"[..]), "cut at {length}");
        assert!(loaded.note.unwrap().contains("damaged"));
    }
}

#[test]
fn any_flipped_bit_is_seen() {
    let whole = seal(b"second");
    for bit in 0..whole.len() * 8 {
        let mut file = whole.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(unseal(&file).is_err(), "bit {bit}");
    }
    let dir = two_generations();
    let mut file = whole;
    *file.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join(CURRENT), file).unwrap();
    assert!(load(&dir).note.unwrap().contains("wrong checksum"));
}

#[test]
fn a_file_with_something_after_its_end_is_refused() {
    let mut file = seal(b"second");
    file.push(0);
    assert_eq!(unseal(&file), Err(Flaw::Length));
}

#[test]
fn a_future_version_is_named() {
    let mut file = seal(b"second");
    file[8] = 9;
    let dir = two_generations();
    fs::write(dir.path().join(CURRENT), file).unwrap();
    let note = load(&dir).note.unwrap();
    assert!(note.contains("of version 9, this weft knows 1"), "{note}");
}

#[test]
fn a_damaged_file_is_kept_aside_and_never_replaces_the_sound_one() {
    let dir = two_generations();
    fs::write(dir.path().join(CURRENT), b"rubbish").unwrap();
    let (store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!(loaded.bytes.as_deref(), Some(&b"first"[..]));
    assert_eq!(fs::read(dir.path().join(DAMAGED)).unwrap(), b"rubbish");
    store.save(b"third").unwrap();
    drop(store);
    assert_eq!(unseal(&fs::read(dir.path().join(PREVIOUS)).unwrap()), Ok(&b"first"[..]));
    assert_eq!(load(&dir), Loaded { bytes: Some(b"third".to_vec()), note: None });
}

#[test]
fn a_crash_between_the_two_renames_loses_nothing_that_was_promised() {
    let dir = two_generations();
    fs::rename(dir.path().join(CURRENT), dir.path().join(PREVIOUS)).unwrap();
    fs::write(dir.path().join(NEW), seal(b"third")).unwrap();
    let loaded = load(&dir);
    assert_eq!(loaded.bytes.as_deref(), Some(&b"second"[..]));
    assert!(loaded.note.unwrap().contains("was missing"));
}

#[test]
fn without_any_sound_generation_the_start_is_empty_but_not_silent() {
    let dir = two_generations();
    fs::write(dir.path().join(CURRENT), b"").unwrap();
    fs::write(dir.path().join(PREVIOUS), b"").unwrap();
    let loaded = load(&dir);
    assert_eq!(loaded.bytes, None);
    assert!(loaded.note.unwrap().ends_with("is damaged too (empty); starting without state"));
    let dir = two_generations();
    fs::remove_file(dir.path().join(PREVIOUS)).unwrap();
    fs::write(dir.path().join(CURRENT), b"weft").unwrap();
    assert!(load(&dir).note.unwrap().ends_with("there is none before it; starting without state"));
}

#[test]
fn a_second_router_on_the_directory_is_refused_by_pid() {
    let dir = Directory::new();
    let (_store, _) = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "state directory {} in use by another router (pid {})",
            dir.path().display(),
            std::process::id()
        )
    );
    assert_eq!(inspect(dir.path()).unwrap(), Condition::InUse(std::process::id().to_string()));
    assert!(matches!(erase(dir.path()), Err(StoreError::InUse { .. })));
}

#[test]
fn a_full_disk_is_an_error_and_the_state_stands() {
    let dir = two_generations();
    let (store, _) = Store::open(dir.path()).unwrap();
    // A device that is always full, where the new file would be written.
    std::os::unix::fs::symlink("/dev/full", dir.path().join(NEW)).unwrap();
    let error = store.save(b"third").unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    drop(store);
    assert_eq!(load(&dir), Loaded { bytes: Some(b"second".to_vec()), note: None });
}

#[test]
fn the_identity_is_private_and_a_damaged_one_is_never_replaced_silently() {
    let dir = Directory::new();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.identity().unwrap(), None);
    store.save_identity(&[7; 32]).unwrap();
    assert_eq!(store.identity().unwrap(), Some([7; 32]));
    let path = dir.path().join(IDENTITY);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(store.identity(), Err(StoreError::Identity { .. })), "cut at {length}");
    }
    fs::write(&path, seal(&[7; 31])).unwrap();
    assert!(matches!(store.identity(), Err(StoreError::Identity { flaw: Flaw::Length, .. })));
}

#[test]
fn erased_means_gone_but_for_what_others_put_there() {
    let dir = two_generations();
    assert_eq!(inspect(dir.path()).unwrap(), Condition::Sound);
    fs::write(dir.path().join("foreign"), "").unwrap();
    assert!(erase(dir.path()).unwrap());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign"]);
    fs::remove_file(dir.path().join("foreign")).unwrap();
    assert_eq!(inspect(dir.path()).unwrap(), Condition::Empty);
    assert!(!erase(dir.path()).unwrap());
    assert!(!dir.path().exists());
    assert!(!erase(dir.path()).unwrap());
}

#[test]
fn a_directory_that_cannot_be_is_an_error_with_its_name() {
    let dir = Directory::new();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("state")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot make {}", file.display())), "{error}");
}

#[test]
fn a_launch_that_came_to_nothing_leaves_what_it_found() {
    let dir = Directory::new();
    let state = dir.path().join("lib/weft");
    let (store, loaded) = Store::open(&state).unwrap();
    store.save_identity(&[7; 32]).unwrap();
    store.save(b"new").unwrap();
    store.abandon(&loaded).unwrap();
    assert!(!dir.path().join("lib").exists(), "nothing was there");

    let dir = two_generations();
    let (store, loaded) = Store::open(dir.path()).unwrap();
    store.save_identity(&[7; 32]).unwrap();
    store.save(b"third").unwrap();
    store.abandon(&loaded).unwrap();
    assert_eq!(load(&dir), Loaded { bytes: Some(b"second".to_vec()), note: None });
    assert!(!dir.path().join(IDENTITY).exists());
}
