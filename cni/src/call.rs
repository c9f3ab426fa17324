//! The environment, checked: which verb is asked for, and of which pod.
//!
//! ```text
//!                  ADD  DEL  CHECK  GC  STATUS  VERSION
//! CNI_COMMAND       x    x     x     x    x        x
//! CNI_CONTAINERID   x    x     x
//! CNI_IFNAME        x    x     x
//! CNI_NETNS         x          x
//! CNI_ARGS          o          o
//! CNI_PATH          with a delegated IPAM plugin
//! ```

use weft_api::CniName;

use crate::{arguments::Arguments, error::Error};

/// Longest container id: with the interface's name it must fit into the 200 bytes of a router's id.
const LONGEST_CONTAINER: usize = 180;
/// Longest interface name, in bytes (IFNAMSIZ less the end mark).
const LONGEST_INTERFACE: usize = 15;
/// Longest path, in bytes.
const LONGEST_PATH: usize = 4095;

/// What was found in the environment, unchecked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// What the program was called as, without its folder.
    pub(crate) name: String,
    /// `CNI_COMMAND`.
    pub(crate) command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub(crate) container: Option<String>,
    /// `CNI_NETNS`.
    pub(crate) netns: Option<String>,
    /// `CNI_IFNAME`.
    pub(crate) ifname: Option<String>,
    /// `CNI_ARGS`.
    pub(crate) args: Option<String>,
    /// `CNI_PATH`.
    pub(crate) path: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Reads `CNI_COMMAND`.
    pub(crate) fn parse(command: Option<&str>) -> Result<Self, Error> {
        let Some(command) = command.filter(|command| !command.is_empty()) else {
            return Err(Error::environment("CNI_COMMAND is missing: a container runtime calls this program"));
        };
        let known = Self::ALL.into_iter().find(|verb| verb.as_str() == command);
        known.ok_or_else(|| Error::environment(format!("CNI_COMMAND is unknown: {}", shown(command))))
    }

    /// Whether it is about one pod.
    fn is_of_pod(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// Whether the pod's namespace must be there.
    fn needs_netns(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// A checked call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The verb.
    pub(crate) verb: Verb,
    /// Which interface of which pod; empty where the verb is of no pod.
    pub(crate) name: CniName,
    /// The namespace's path; empty where the verb needs none.
    pub(crate) netns: String,
    /// `CNI_ARGS`.
    pub(crate) arguments: Arguments,
}

impl Call {
    /// Checks what the verb needs; the error names every variable that is missing or wrong.
    pub(crate) fn parse(verb: Verb, environment: &Environment) -> Result<Self, Error> {
        let mut wrong = Vec::new();
        let mut take = |name: &str, value: &Option<String>, needed: bool, check: Check| {
            let value = value.clone().unwrap_or_default();
            if !needed {
                return String::new();
            }
            if value.is_empty() {
                wrong.push(format!("{name} is missing"));
            } else if let Err(reason) = check(&value) {
                wrong.push(format!("{name} is invalid ({}): {reason}", shown(&value)));
            }
            value
        };
        let container = take("CNI_CONTAINERID", &environment.container, verb.is_of_pod(), container);
        let ifname = take("CNI_IFNAME", &environment.ifname, verb.is_of_pod(), interface);
        let netns = take("CNI_NETNS", &environment.netns, verb.needs_netns(), path);
        let arguments = match (&environment.args, verb.needs_netns()) {
            (Some(args), true) => Arguments::parse(args).unwrap_or_else(|reason| {
                wrong.push(format!("CNI_ARGS is invalid: {reason}"));
                Arguments::default()
            }),
            (Some(_), false) | (None, _) => Arguments::default(),
        };
        if wrong.is_empty() {
            Ok(Self { verb, name: CniName { container, ifname }, netns, arguments })
        } else {
            Err(Error::environment(wrong.join("; ")))
        }
    }
}

/// Says what is wrong with a value.
type Check = fn(&str) -> Result<(), &'static str>;

fn container(value: &str) -> Result<(), &'static str> {
    if !is_name(value) {
        Err("it must begin with a letter or digit and go on with letters, digits, '_', '.' and '-'")
    } else if value.len() > LONGEST_CONTAINER {
        Err("it has more than 180 bytes")
    } else {
        Ok(())
    }
}

fn interface(value: &str) -> Result<(), &'static str> {
    let odd = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if value.len() > LONGEST_INTERFACE {
        Err("it has more than 15 bytes")
    } else if value == "." || value == ".." || value.contains(odd) {
        Err("it must have no slash, colon, percent sign or blank and not be '.' or '..'")
    } else {
        Ok(())
    }
}

fn path(value: &str) -> Result<(), &'static str> {
    if !value.starts_with('/') {
        Err("it must be an absolute path")
    } else if value.len() > LONGEST_PATH {
        Err("it has more than 4095 bytes")
    } else {
        Ok(())
    }
}

/// Whether a text has the form of a container id or a network's name (specification, section 1).
pub(crate) fn is_name(value: &str) -> bool {
    let mut letters = value.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'.' | b'-'))
}

/// A value from outside, fit for a message.
fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Environment {
        Environment {
            name: "weft-net".into(),
            command: Some("ADD".into()),
            container: Some("c1".into()),
            netns: Some("/run/netns/c1".into()),
            ifname: Some("eth0".into()),
            args: None,
            path: None,
        }
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let error = Call::parse(Verb::Add, &Environment::default()).unwrap_err();
        assert_eq!(error.code, 4);
        for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
            assert!(error.msg.contains(name), "{}", error.msg);
        }
        assert_eq!(Verb::parse(None).unwrap_err().code, 4);
        assert!(Verb::parse(Some("add")).unwrap_err().msg.contains("CNI_COMMAND"));
    }

    #[test]
    fn a_delete_needs_no_namespace_and_a_collection_no_pod() {
        let environment = Environment { netns: None, ..good() };
        assert!(Call::parse(Verb::Del, &environment).is_ok());
        assert_eq!(Call::parse(Verb::Check, &environment).unwrap_err().code, 4);
        assert!(Call::parse(Verb::Gc, &Environment::default()).is_ok());
        assert!(Call::parse(Verb::Status, &Environment::default()).is_ok());
    }

    #[test]
    fn hostile_values_are_refused_with_the_variable_s_name() {
        let long = "x".repeat(300);
        for bad in ["../../x", ";rm -rf", "a/b", "-a", ".a", "ä", "a\nb", "a b", "", &long] {
            let environment = Environment { container: Some(bad.into()), ..good() };
            let error = Call::parse(Verb::Add, &environment).unwrap_err();
            assert!(error.code == 4 && error.msg.contains("CNI_CONTAINERID"), "{bad:?}: {}", error.msg);
        }
        for bad in ["a/b", "a:b", "a b", ".", "..", "sixteen-bytes-xx", "a\nb", "a%d", ""] {
            let environment = Environment { ifname: Some(bad.into()), ..good() };
            let error = Call::parse(Verb::Del, &environment).unwrap_err();
            assert!(error.code == 4 && error.msg.contains("CNI_IFNAME"), "{bad:?}: {}", error.msg);
        }
        for bad in ["c1", "../netns", ""] {
            let environment = Environment { netns: Some(bad.into()), ..good() };
            let error = Call::parse(Verb::Add, &environment).unwrap_err();
            assert!(error.code == 4 && error.msg.contains("CNI_NETNS"), "{bad:?}: {}", error.msg);
        }
    }
}
