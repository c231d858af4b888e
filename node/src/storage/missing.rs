//! Which records a log should hold and does not, and whether they had been durable (PROTOCOL §9).

use std::ops::Range;

/// Most ranges of missing records that are kept apart; with more, the last one covers all that follow. (Where a range
/// straddles what was durable and what was not, it is then listed in parts.)
pub const MISSING_MAX: usize = 1024;

/// Records that were written and cannot be read: both copies of their heads are damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Their numbers, as far as they are known: at the start of the log they can begin with 0.
    pub numbers: Range<u64>,
    /// Whether they had been durable. If not, they belong to the last write before the process ended, which may never have
    /// been complete: then nobody was told of them.
    pub was_durable: bool,
}

/// What is found missing while a log is read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Ascending, not adjacent, at most `MISSING_MAX`.
    ranges: Vec<Range<u64>>,
    /// What headers remember as torn. At most one range a segment.
    torn: Vec<Range<u64>>,
}

impl Found {
    /// These numbers, larger than all before, are missing.
    pub(super) fn add(&mut self, numbers: Range<u64>) {
        let is_full = self.ranges.len() >= MISSING_MAX;
        match self.ranges.last_mut() {
            Some(last) if is_full || last.end == numbers.start => last.end = numbers.end,
            _ => self.ranges.push(numbers),
        }
    }

    /// A header says that these, if missing, had not been durable. An empty range says nothing.
    pub(super) fn remember_torn(&mut self, numbers: Range<u64>) {
        if !numbers.is_empty() {
            self.torn.push(numbers);
        }
    }

    /// Tells what had been durable, before `synced_before` and not remembered as torn, from what had not. Also returns
    /// from where to where there is something that had not been durable and that no header remembers yet.
    pub(super) fn classify(&self, synced_before: u64) -> (Vec<Missing>, Range<u64>) {
        let mut classified = Vec::new();
        let mut new: Option<Range<u64>> = None;
        for numbers in self.ranges.iter().flat_map(|range| self.parts(range.clone(), synced_before)) {
            let is_remembered = self.torn.iter().any(|torn| torn.contains(&numbers.start));
            let is_late = numbers.start >= synced_before;
            if is_late && !is_remembered {
                let start = new.map_or(numbers.start, |new| new.start);
                new = Some(start..numbers.end);
            }
            classified.push(Missing { numbers, was_durable: !is_late && !is_remembered });
        }
        (classified, new.unwrap_or(0..0))
    }

    /// `range` divided so that all numbers of a part share one class.
    fn parts(&self, range: Range<u64>, synced_before: u64) -> impl Iterator<Item = Range<u64>> {
        let mut start = range.start;
        std::iter::from_fn(move || {
            let part = (start < range.end).then(|| start..self.end_of_part(start, range.end, synced_before))?;
            start = part.end;
            Some(part)
        })
    }

    /// Up to where all numbers from `start` on, at most up to `end`, share one class.
    fn end_of_part(&self, start: u64, end: u64, synced_before: u64) -> u64 {
        let bounds = self.torn.iter().flat_map(|torn| [torn.start, torn.end]).chain([synced_before]);
        bounds.filter(|bound| (start + 1..end).contains(bound)).min().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(numbers: Range<u64>, was_durable: bool) -> Missing {
        Missing { numbers, was_durable }
    }

    #[test]
    fn a_range_is_divided_where_durable_ends() {
        let mut found = Found::default();
        found.add(3..5);
        found.add(8..12);
        let expected = vec![missing(3..5, true), missing(8..10, true), missing(10..12, false)];
        assert_eq!(found.classify(10), (expected, 10..12));
        assert_eq!(found.classify(12), (vec![missing(3..5, true), missing(8..12, true)], 0..0));
    }

    #[test]
    fn what_a_header_remembers_stays_torn_and_is_not_new() {
        let mut found = Found::default();
        found.add(3..9);
        found.remember_torn(5..7);
        found.remember_torn(0..0);
        let expected = vec![missing(3..5, true), missing(5..7, false), missing(7..9, true)];
        assert_eq!(found.classify(20), (expected, 0..0));
    }

    #[test]
    fn too_many_ranges_run_together_and_none_is_forgotten() {
        let mut found = Found::default();
        for number in 0..2000 {
            found.add(3 * number..3 * number + 1);
        }
        let (classified, _) = found.classify(u64::MAX);
        assert_eq!(classified.len(), MISSING_MAX);
        assert_eq!(classified.last(), Some(&missing(3 * 1023..3 * 1999 + 1, true)));
    }
}
