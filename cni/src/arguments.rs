//! `CNI_ARGS`: pairs by which a runtime asks for an address or a MAC address.

/// The arguments that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `IP`: addresses it must have.
    pub(crate) addresses: Vec<String>,
    /// `MAC`.
    pub(crate) mac: Option<String>,
}

impl Arguments {
    /// Reads `KEY=VALUE;…`. Kubernetes' own keys are known and mean nothing here; any other unknown key is an error
    /// unless `IgnoreUnknown` says otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut arguments = Self::default();
        let (mut unknown, mut ignore) = (Vec::new(), false);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let short: String = pair.chars().take(60).collect();
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{short:?} is not KEY=VALUE"))?;
            match key {
                "IP" => arguments.addresses.extend(listed(value)),
                "MAC" => arguments.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
                "IgnoreUnknown" => {
                    ignore = flag(value).ok_or_else(|| format!("{short:?}: a switch is true or false"))?;
                }
                _ if key.starts_with("K8S_") => {}
                _ => unknown.push(key.chars().take(60).collect::<String>()),
            }
        }
        match unknown.first() {
            Some(key) if !ignore => Err(format!("{key:?} is unknown, and IgnoreUnknown is not set")),
            Some(_) | None => Ok(arguments),
        }
    }
}

/// The parts of a list with commas.
fn listed(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" | "TRUE" => Some(true),
        "0" | "false" | "False" | "FALSE" | "" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_may_ask_for_an_address_and_a_mac() {
        let arguments = Arguments::parse("IP=10.32.0.5/12,10.32.0.6;MAC=0a:00:00:00:00:01;").unwrap();
        assert_eq!(arguments.addresses, ["10.32.0.5/12", "10.32.0.6"]);
        assert_eq!(arguments.mac.as_deref(), Some("0a:00:00:00:00:01"));
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
    }

    #[test]
    fn unknown_keys_are_refused_unless_they_are_to_be_ignored() {
        assert!(Arguments::parse("FOO=bar").unwrap_err().contains("FOO"));
        for text in ["IgnoreUnknown=1;FOO=bar", "FOO=bar;IgnoreUnknown=true", "K8S_POD_NAME=x;K8S_ANY=y"] {
            assert_eq!(Arguments::parse(text).unwrap(), Arguments::default());
        }
        assert!(Arguments::parse("FOO").is_err());
        assert!(Arguments::parse("IgnoreUnknown=maybe").is_err());
    }
}
