//! A loop that takes a given share of the processors, as an attacker does that works hard, and does nothing else.

use std::fs;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How long a thread works and rests in turn.
const PERIOD: Duration = Duration::from_millis(10);

/// In what the kernel counts the time of processes, whatever it counts in itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// The loop, until it is dropped.
#[derive(Debug)]
pub(super) struct Spin {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spin {
    /// Takes so many processors: 0.5 is half of one.
    pub(super) fn begin(processors: f64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut left = processors;
        let mut threads = Vec::new();
        while left > 0.0 {
            let (share, is_over) = (left.min(1.0), Arc::clone(&is_over));
            threads.push(thread::spawn(move || work(share, &is_over)));
            left -= 1.0;
        }
        Self { is_over, threads }
    }
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Works for that share of the time that passes. What it could not get of it, it makes up for within a period.
fn work(share: f64, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        while begun.elapsed() < PERIOD.mul_f64(share) {
            spin_loop();
        }
        sleep(PERIOD.saturating_sub(begun.elapsed()));
    }
}

/// How long a process has had a processor since it was started; nothing where the system does not tell.
pub(super) fn processor_time(process: u64) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in brackets may hold anything. What follows begins with the third field; 14 and 15 are wanted.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0)).sum();
    Some(Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_loop_takes_about_what_it_is_told_to() {
        let own = || processor_time(u64::from(std::process::id())).expect("the system tells");
        let before = own();
        {
            let _spin = Spin::begin(0.5);
            sleep(Duration::from_secs(1));
        }
        let taken = own().saturating_sub(before);
        // Other tests run beside it.
        assert!(taken >= Duration::from_millis(250), "{taken:?}");
        assert_eq!(processor_time(u64::from(u32::MAX)), None);
    }
}
