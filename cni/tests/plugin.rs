//! The program itself, without a router: what it prints, how it ends, and that it touches nothing.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

/// A directory of one test, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weft-cni-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a directory of its own");
        Self(path)
    }

    fn conf(&self, version: &str) -> String {
        let socket = self.0.join("run/weft.sock");
        json!({"cniVersion": version, "name": "weft", "type": "weft-net", "socket": socket}).to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the plugin for one pod with a verb, further variables and an input.
fn plugin(verb: &str, variables: &[(&str, &str)], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-net"));
    command.env_clear().env("CNI_COMMAND", verb);
    command
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", "/run/netns/weft-no-such");
    command.envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // It may have refused before it read.
    let _ = child.stdin.take().expect("it was piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

/// The one document on the standard output of a plugin that failed.
fn error(output: &Output) -> Value {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("a document")
}

#[test]
fn version_needs_no_other_variable_and_ends_well() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-net"));
    let output = command.env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":\
         [\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
    );
}

#[test]
fn bad_variables_are_error_4_and_are_named() {
    let dir = Directory::new();
    for (variable, bad) in [
        ("CNI_COMMAND", "FROB"),
        ("CNI_COMMAND", ""),
        ("CNI_CONTAINERID", "../../x"),
        ("CNI_CONTAINERID", ";rm -rf /"),
        ("CNI_CONTAINERID", "a\nb"),
        ("CNI_CONTAINERID", ""),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "sixteen-bytes-xx"),
        ("CNI_NETNS", "relative"),
        ("CNI_ARGS", "FOO=bar"),
        ("CNI_NETNS", "/etc/passwd"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
        ("CNI_NETNS", "/dev/null"),
    ] {
        let output = plugin("ADD", &[(variable, bad)], dir.conf("1.0.0").as_bytes());
        let error = error(&output);
        assert_eq!(error["code"], 4, "{variable}={bad}: {error}");
        assert!(error["msg"].as_str().unwrap().contains(variable), "{error}");
    }
    assert!(!dir.0.join("run").exists(), "nothing was noted");
}

#[test]
fn an_input_that_is_no_configuration_is_error_5_6_or_7_and_memory_stays_small() {
    let (whole, large) = (Directory::new().conf("1.0.0"), vec![b' '; 10 << 20]);
    let nested = format!(r#"{{"cniVersion":"1.0.0","name":"n","prevResult":{}"#, "[".repeat(1 << 19));
    for end in 0..whole.len() {
        let code = error(&plugin("DEL", &[], &whole.as_bytes()[..end]))["code"].as_u64().unwrap();
        assert_eq!(code, 6, "cut at {end}");
    }
    for (input, code) in [
        (&large[..], 5),
        (nested.as_bytes(), 6),
        (b"\xff\xfe", 6),
        (br#"{"cniVersion":"1.0.0","name":"a","name":"b"}"#, 6),
        (br#"{"cniVersion":[],"name":"a"}"#, 6),
        (br#"{"cniVersion":"1.0.0"}"#, 7),
        (br#"{"cniVersion":"3.0.0","name":"a"}"#, 1),
    ] {
        assert_eq!(
            error(&plugin("DEL", &[], input))["code"],
            code,
            "{}",
            String::from_utf8_lossy(&input[..40.min(input.len())])
        );
    }
}

#[test]
fn verbs_of_later_versions_are_error_1() {
    let dir = Directory::new();
    assert_eq!(error(&plugin("CHECK", &[("CNI_NETNS", "/x")], dir.conf("0.3.1").as_bytes()))["code"], 1);
    assert_eq!(error(&plugin("GC", &[], dir.conf("1.0.0").as_bytes()))["code"], 1);
    let error = error(&plugin("STATUS", &[], dir.conf("1.0.0").as_bytes()));
    assert_eq!((&error["code"], &error["cniVersion"]), (&json!(1), &json!("1.0.0")));
}

#[test]
fn without_a_router_a_delete_leaves_one_private_note_and_succeeds_and_the_status_is_50() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Directory::new();
    for _ in 0..3 {
        let output = plugin("DEL", &[], dir.conf("1.1.0").as_bytes());
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    let notes = dir.0.join("run/pending-del");
    assert_eq!(fs::metadata(&notes).unwrap().permissions().mode() & 0o777, 0o700);
    let found: Vec<String> = fs::read_dir(&notes)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, ["link-c1%2Feth0"]);
    assert_eq!(error(&plugin("STATUS", &[], dir.conf("1.1.0").as_bytes()))["code"], 50);
    let gc = json!({"cniVersion": "1.1.0", "name": "n", "socket": dir.0.join("none"), "cni.dev/valid-attachments": []});
    assert_eq!(error(&plugin("GC", &[], gc.to_string().as_bytes()))["code"], 11);
}

#[test]
fn a_delete_that_can_leave_no_note_is_to_be_tried_again() {
    let dir = Directory::new();
    fs::write(dir.0.join("file"), "").unwrap();
    let conf = json!({"cniVersion": "1.0.0", "name": "n", "socket": dir.0.join("file/weft.sock")});
    assert_eq!(error(&plugin("DEL", &[], conf.to_string().as_bytes()))["code"], 11);
}

#[test]
fn another_ipam_plugin_is_found_on_the_path_and_its_words_are_handed_on() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Directory::new();
    let program = dir.0.join("other");
    let script = format!(
        "#!/bin/sh\ncat > {0}/in\necho $CNI_COMMAND >> {0}/verbs\n\
         echo '{{\"cniVersion\":\"1.1.0\",\"code\":42,\"msg\":\"no lease\"}}'\nexit 1\n",
        dir.0.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let conf = json!({"cniVersion": "1.1.0", "name": "n", "socket": dir.0.join("weft.sock"), "ipam": {"type": "other"}});
    let conf = conf.to_string();
    let path = format!("/no/such:{}", dir.0.display());
    let failed = error(&plugin("DEL", &[("CNI_PATH", &path)], conf.as_bytes()));
    assert_eq!((&failed["code"], &failed["msg"]), (&json!(42), &json!("IPAM plugin other: no lease")));
    assert_eq!(fs::read_to_string(dir.0.join("in")).unwrap(), conf, "it was given the same input");
    assert_eq!(fs::read_to_string(dir.0.join("verbs")).unwrap(), "DEL\n");
    let missing = error(&plugin("DEL", &[], conf.as_bytes()));
    assert!(missing["code"] == 4 && missing["msg"].as_str().unwrap().contains("CNI_PATH"), "{missing}");
    assert!(Path::new(&program).exists());
}
