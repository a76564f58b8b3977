//! Whether the arrays of a step overlap; free where the pointers are those of the step before.

/// An array of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) bytes: usize,
    pub(super) writes: bool,
    /// Which tensor and array it is, for the message.
    pub(super) tensor: usize,
    pub(super) what: &'static str,
}

/// Remembers the arrays that were last found disjoint.
#[derive(Debug, Default)]
pub(super) struct OverlapCheck {
    current: Vec<Span>,
    verified: Vec<Span>,
    sorted: Vec<Span>,
}

impl OverlapCheck {
    pub(super) fn clear(&mut self) {
        self.current.clear();
    }

    pub(super) fn push(&mut self, span: Span) {
        if span.bytes > 0 {
            self.current.push(span);
        }
    }

    /// Two arrays that overlap and one of which a step writes.
    pub(super) fn find(&mut self) -> Option<(Span, Span)> {
        if self.current == self.verified {
            return None;
        }
        self.sorted.clone_from(&self.current);
        self.sorted.sort_unstable_by_key(|span| span.start);
        // Of the spans that start at or before the one looked at, those that reach furthest.
        let (mut written, mut read): (Option<Span>, Option<Span>) = (None, None);
        let end = |span: &Span| span.start.saturating_add(span.bytes);
        for span in &self.sorted {
            let reaches = |other: &Option<Span>| other.filter(|other| end(other) > span.start);
            let clash = reaches(&written).or_else(|| reaches(&read).filter(|_| span.writes));
            if let Some(other) = clash {
                return Some((other, *span));
            }
            let furthest = if span.writes { &mut written } else { &mut read };
            if furthest.is_none_or(|other| end(&other) < end(span)) {
                *furthest = Some(*span);
            }
        }
        // Not swapped: the next step would find the other, empty list and allocate.
        self.verified.clone_from(&self.current);
        None
    }
}
