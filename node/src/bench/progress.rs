//! What is shown on stderr while load is driven: a bar on a terminal, elsewhere a line of the log every few seconds.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::measure::Shared;
use super::options::Extent;

/// From one refresh of the bar to the next.
const REFRESH: Duration = Duration::from_millis(250);

/// Refreshes between two lines of the log.
const REFRESHES_PER_LINE: u64 = 20;

/// Shows how it goes until it is dropped.
pub(super) async fn show(shared: Arc<Shared>, extent: Extent, warm_up: Duration) {
    let is_terminal = io::stderr().is_terminal();
    let bar = is_terminal.then(|| bar(extent, warm_up));
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut last_operations, mut last_ns) = (0, 0);
    for tick in 0_u64.. {
        ticks.tick().await;
        if bar.is_none() && !tick.is_multiple_of(REFRESHES_PER_LINE) {
            continue;
        }
        let (operations, now_ns) = (shared.operations.load(Ordering::Relaxed), shared.now_ns());
        let passed = Duration::from_nanos(now_ns.saturating_sub(last_ns)).as_secs_f64();
        let rate = per_second(operations - last_operations, passed);
        (last_operations, last_ns) = (operations, now_ns);
        let errors = shared.errors.load(Ordering::Relaxed);
        let phase = if now_ns < shared.phases.measure_ns { "warming up" } else { "measuring" };
        let failed = if errors > 0 { format!(", {errors} errors") } else { String::new() };
        match &bar {
            Some(bar) => {
                bar.set_position(position(extent, now_ns, operations));
                bar.set_message(format!("{phase}: {rate:.0} operations/s{failed}"));
            }
            None if tick > 0 => tracing::info!("{phase}: {rate:.0} operations a second, {operations} so far{failed}"),
            None => {}
        }
    }
}

fn bar(extent: Extent, warm_up: Duration) -> ProgressBar {
    let length = match extent {
        Extent::Duration(duration) => u64::try_from((warm_up + duration).as_millis()).unwrap_or(u64::MAX),
        Extent::Requests(requests) => requests,
    };
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}");
    // Without the style the bar looks plainer.
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn position(extent: Extent, now_ns: u64, operations: u64) -> u64 {
    match extent {
        Extent::Duration(_) => now_ns / 1_000_000,
        Extent::Requests(_) => operations,
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with no more digits than are exact")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
