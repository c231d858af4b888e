//! The log on stderr: how much of it, and in which form.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::{Global, LogFormat};

/// The variable whose directives replace what `-v` and `-q` say, for instance `quorate_node::cli=trace`.
const VARIABLE: &str = "QUORATE_LOG";

/// Starts logging to stderr.
pub(super) fn start(global: &Global) {
    let asked = std::env::var(VARIABLE).ok().map(EnvFilter::try_new).transpose();
    let (asked, wrong) = asked.map_or_else(|error| (None, Some(error)), |asked| (asked, None));
    let filter = asked.unwrap_or_else(|| EnvFilter::new(directives(global)));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let subscriber = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !plain)
        .log_internal_errors(false);
    let started = match global.log_format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.with_target(false).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().finish()),
    };
    // Another program that embeds this one may log already.
    started.ok();
    if let Some(error) = wrong {
        tracing::warn!("{VARIABLE} is not followed: {error}");
    }
}

/// What others log is of interest only to who asks for everything.
fn directives(global: &Global) -> String {
    let (others, own) = match (global.quiet, global.verbose) {
        (0, 0) => ("warn", "info"),
        (0, 1) => ("info", "debug"),
        (0, _) => ("debug", "trace"),
        (1, _) => ("error", "warn"),
        (_, _) => ("error", "error"),
    };
    ["quorate", "quorate_node", "quorate_protocol", "quorate_simulator"]
        .into_iter()
        .fold(others.to_owned(), |directives, own_crate| format!("{directives},{own_crate}={own}"))
}
