//! The configuration list that runtimes read, and how to tell one of ours from one that was changed.
//!
//! It is a pure function of three things, so a file is ours exactly when one of the few texts that we could have
//! written is the same to the byte. A later version that writes another text must still know this one.

use std::path::Path;

use serde_json::{Value, json};

/// Its name: runtimes take the first of the directory.
pub(super) const FILE: &str = "10-weft.conflist";

/// Where the plugin finds the router when nothing else is said.
const SOCKET: &str = "/run/weft/weft.sock";

/// What a configuration list depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflist {
    socket: String,
    portmap: bool,
    bandwidth: bool,
}

impl Conflist {
    /// For the router behind that socket, with those of the common plugins that are there.
    pub(super) fn new(socket: &Path, portmap: bool, bandwidth: bool) -> Self {
        Self { socket: socket.display().to_string(), portmap, bandwidth }
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let mut net = json!({
            "type": "weft-net",
            "capabilities": { "ips": true, "mac": true },
            "ipam": { "type": "weft-ipam" },
        });
        if self.socket != SOCKET {
            net["socket"] = Value::from(self.socket.clone());
        }
        let mut plugins = vec![net];
        if self.portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        if self.bandwidth {
            plugins.push(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
        }
        // A runtime older than 1.1.0 reads the first and skips the second; a newer one takes the highest it speaks,
        // and so asks for the status.
        let list = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": "weft",
            "plugins": plugins,
        });
        format!("{list:#}\n")
    }

    /// Whether a text is one that we could have written.
    pub(super) fn is_ours(text: &str) -> bool {
        let read: Value = serde_json::from_str(text).unwrap_or_default();
        let socket = read["plugins"][0]["socket"].as_str().unwrap_or(SOCKET);
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .any(|(portmap, bandwidth)| Self::new(Path::new(socket), portmap, bandwidth).text() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_is_ours_and_any_change_to_it_is_not() {
        for socket in [SOCKET, "/x/y.sock"] {
            for (portmap, bandwidth) in [(false, false), (true, false), (true, true)] {
                let text = Conflist::new(Path::new(socket), portmap, bandwidth).text();
                assert!(Conflist::is_ours(&text), "{text}");
                assert_eq!(text.contains("portmap"), portmap);
                for changed in
                    [format!("{text} "), text.replace("weft-net", "weft-nett"), text[1..].to_owned()]
                {
                    assert!(!Conflist::is_ours(&changed), "{changed}");
                }
            }
        }
        assert!(!Conflist::is_ours(""));
    }
}
