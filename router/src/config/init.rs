//! Who makes the first ring.

use std::{collections::BTreeSet, fmt, num::NonZeroUsize, str::FromStr};

use super::{ConfigError, Nickname};

/// Who makes the first ring, at the first demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// A majority of so many peers, this one included; none: the larger of the peers given + 1 and those known.
    Consensus(Option<NonZeroUsize>),
    /// Exactly these peers.
    Seed(BTreeSet<Nickname>),
    /// Others; this peer only waits.
    Observer,
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consensus(None) => f.write_str("consensus"),
            Self::Consensus(Some(peers)) => write!(f, "consensus={peers}"),
            Self::Seed(names) => {
                let names: Vec<&str> = names.iter().map(Nickname::as_str).collect();
                write!(f, "seed={}", names.join(","))
            }
            Self::Observer => f.write_str("observer"),
        }
    }
}

impl FromStr for Init {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once('=') {
            None if text == "consensus" => Ok(Self::Consensus(None)),
            None if text == "observer" => Ok(Self::Observer),
            Some(("consensus", peers)) => match peers.parse::<NonZeroUsize>() {
                Ok(peers) if peers.get() <= 10_000 => Ok(Self::Consensus(Some(peers))),
                _ => Err(ConfigError(format!("'{peers}' is no number of peers: 1 to 10000"))),
            },
            Some(("seed", names)) => {
                names.split(',').map(str::parse).collect::<Result<_, _>>().map(Self::Seed)
            }
            _ => Err(ConfigError("it is consensus, consensus=N, seed=NICKNAME,... or observer".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_printed_as_they_are_read() {
        for text in ["consensus", "consensus=3", "seed=a", "seed=a,b", "observer"] {
            assert_eq!(text.parse::<Init>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in [
            "",
            "consensus=",
            "consensus=0",
            "consensus=-1",
            "consensus=x",
            "consensus=99999",
            "seed",
            "seed=",
            "seed=a,,b",
            "observer=1",
            "Observer",
            "paxos",
        ] {
            assert!(text.parse::<Init>().is_err(), "{text:?}");
        }
    }
}
