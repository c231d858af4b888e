//! The table `[parameters]` of a genesis file, and changes to its defaults from the command line.

use std::fmt;
use std::str::FromStr;

use quorate_protocol::configuration::{ClientPolicy, Parameters};
use serde::{Deserialize, Serialize};

/// [`Parameters`] as they stand in the file, under the same names: a field that one of the two lacks does not compile.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Parameters", deny_unknown_fields)]
pub(super) struct ParametersTable {
    checkpoint_interval: u64,
    window: u64,
    pipeline: u64,
    batch_bytes_max: u32,
    batch_operations_max: u32,
    request_bytes_max: u32,
    outstanding_max: u32,
    sessions_max: u32,
    reply_cache_bytes_max: u64,
    heartbeat_ms: u32,
    crash_suspicion_ms: u32,
    ordering_deadline_ms: u32,
    deadline_cap_ms: u32,
    clock_bound_ms: u32,
    client_timeout_ms: u32,
    rejoin_interval_ms: u32,
    passed_over_ms: u32,
    fast_reads: bool,
    #[serde(with = "clients")]
    clients: ClientPolicy,
}

/// Whose requests are ordered: `"any"`, or a list of keys.
mod clients {
    use std::fmt;

    use quorate_crypto::PublicKey;
    use quorate_protocol::codec::List;
    use quorate_protocol::configuration::{ClientPolicy, LISTED_CLIENTS_MAX};
    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(policy: &ClientPolicy, serializer: S) -> Result<S::Ok, S::Error> {
        match policy {
            ClientPolicy::Any => serializer.serialize_str("any"),
            ClientPolicy::Listed(keys) => serializer.collect_seq(keys.iter().map(ToString::to_string)),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClientPolicy, D::Error> {
        deserializer.deserialize_any(Policy)
    }

    struct Policy;

    impl<'de> Visitor<'de> for Policy {
        type Value = ClientPolicy;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("\"any\" or a list of public keys")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<ClientPolicy, E> {
            if text == "any" { Ok(ClientPolicy::Any) } else { Err(E::custom("neither \"any\" nor a list of keys")) }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<ClientPolicy, A::Error> {
            let mut keys = Vec::new();
            while let Some(text) = sequence.next_element::<String>()? {
                keys.push(text.parse::<PublicKey>().map_err(A::Error::custom)?);
            }
            let too_many = || A::Error::custom(format!("more than {LISTED_CLIENTS_MAX} keys"));
            List::new(keys).map(ClientPolicy::Listed).ok_or_else(too_many)
        }
    }
}

/// `NAME=VALUE`: a parameter that is to differ from its default when a cluster is founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterChange {
    name: String,
    value: String,
}

/// Why a parameter cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterChangeError {
    /// There is no equals sign, or nothing on one side of it.
    #[error("not of the form NAME=VALUE, for example `window=256`")]
    Form,
    /// No parameter has that name.
    #[error("there is no parameter `{name}`: use one of {names}")]
    Name {
        /// The name that was given.
        name: String,
        /// All names.
        names: String,
    },
    /// The value is not one of that parameter's.
    #[error("parameter `{name}`: {reason}")]
    Value {
        /// The parameter.
        name: String,
        /// What is wrong with the value.
        reason: String,
    },
}

impl FromStr for ParameterChange {
    type Err = ParameterChangeError;

    fn from_str(text: &str) -> Result<Self, ParameterChangeError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(ParameterChangeError::Form),
        }
    }
}

impl fmt::Display for ParameterChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, self.value)
    }
}

impl ParameterChange {
    /// `parameters` with this change. Relations between parameters are checked when a configuration is built.
    ///
    /// # Errors
    /// [`ParameterChangeError::Name`] or [`ParameterChangeError::Value`].
    pub fn apply(&self, parameters: Parameters) -> Result<Parameters, ParameterChangeError> {
        let wrong = |reason: &toml::de::Error| ParameterChangeError::Value {
            name: self.name.clone(),
            reason: reason.message().to_owned(),
        };
        let file = toml::Value::try_from(Table { parameters });
        let mut file = file.expect("numbers below 2^63 and texts have a form in TOML, and so have all parameters");
        let Some(table) = file.get_mut("parameters").and_then(toml::Value::as_table_mut) else {
            return Err(ParameterChangeError::Form);
        };
        let names = table.keys().cloned().collect::<Vec<_>>().join(", ");
        let Some(value) = table.get_mut(&self.name) else {
            return Err(ParameterChangeError::Name { name: self.name.clone(), names });
        };
        *value = match self.value.parse() {
            Ok(number) => toml::Value::Integer(number),
            Err(_) => match self.value.parse() {
                Ok(truth) => toml::Value::Boolean(truth),
                Err(_) => toml::Value::String(self.value.clone()),
            },
        };
        file.try_into::<Table>().map(|table| table.parameters).map_err(|error| wrong(&error))
    }
}

/// A table that holds the parameters as a genesis does.
#[derive(Serialize, Deserialize)]
struct Table {
    #[serde(with = "ParametersTable")]
    parameters: Parameters,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Result<Parameters, ParameterChangeError> {
        text.parse::<ParameterChange>()?.apply(Parameters::default())
    }

    #[test]
    fn a_changed_parameter_differs_and_no_other() {
        let expected = Parameters { window: 256, ..Parameters::default() };
        assert_eq!(change("window=256"), Ok(expected));
        assert_eq!(change("clients=any"), Ok(Parameters::default()));
        assert_eq!(change("fast_reads=true"), Ok(Parameters { fast_reads: true, ..Parameters::default() }));
    }

    #[test]
    fn a_change_that_cannot_be_is_refused_with_the_reason() {
        assert_eq!(change("window"), Err(ParameterChangeError::Form));
        assert_eq!(change("=3"), Err(ParameterChangeError::Form));
        assert!(
            matches!(change("windows=3"), Err(ParameterChangeError::Name { names, .. }) if names.contains("window"))
        );
        for text in
            ["window=many", "window=-1", "pipeline=1.5", "heartbeat_ms=4294967296", "clients=none", "fast_reads=1"]
        {
            assert!(matches!(change(text), Err(ParameterChangeError::Value { .. })), "{text}");
        }
    }
}
