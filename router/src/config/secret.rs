//! The cluster secret: never printed, never logged.

use std::fmt;

use super::ConfigError;

/// What all peers of a cluster know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret without the blanks around it (files end in a newline).
    ///
    /// # Errors
    ///
    /// When nothing is left.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        match text.trim() {
            "" => Err(ConfigError("the secret is empty: 'weft secret generate' makes one".to_owned())),
            secret => Ok(Self(secret.to_owned())),
        }
    }

    /// The secret itself, for the key derivation only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_never_shown() {
        let secret = Secret::new(" s3cret \n").unwrap();
        assert_eq!(secret.reveal(), "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        assert!(Secret::new(" \n").is_err());
    }
}
