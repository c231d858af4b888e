//! The signals that ask a program to end.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for signals from when it is built on; none that comes later is lost.
#[derive(Debug)]
pub(super) struct StopSignals {
    listened: Vec<(&'static str, Signal)>,
}

impl StopSignals {
    /// Ctrl-C and SIGTERM.
    pub(super) fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { listened: vec![("SIGINT", interrupt), ("SIGTERM", terminate)] })
    }

    /// Those, Ctrl-\ and the end of the terminal, unless whoever started the program had it ignore that, as `nohup` does:
    /// all that end a program which must not leave behind what it made.
    pub(super) fn listen_to_all() -> io::Result<Self> {
        let Self { mut listened } = Self::listen()?;
        listened.push(("SIGQUIT", signal(SignalKind::quit())?));
        if !is_hangup_ignored() {
            listened.push(("SIGHUP", signal(SignalKind::hangup())?));
        }
        Ok(Self { listened })
    }

    /// Waits for the next one and gives its name.
    pub(super) async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            let mut listened = self.listened.iter_mut();
            let came = listened.find_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The kernel lists the ignored signals as bits of a hexadecimal number, SIGHUP the lowest.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}
