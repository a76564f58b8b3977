//! Whether the arrays of a step overlap; next to free where they are those of the step before.

/// What an array is, for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Parameter,
    Gradient,
    State,
    Rows,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Parameter => "the parameter",
            What::Gradient => "the gradient",
            What::State => "the state",
            What::Rows => "the rows",
        }
    }

    /// Whether a step writes it.
    fn is_written(self) -> bool {
        matches!(self, What::Parameter | What::State)
    }
}

/// An array of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) bytes: usize,
    pub(super) tensor: usize,
    pub(super) what: What,
}

/// Remembers the arrays that were last found disjoint.
#[derive(Debug, Default)]
pub(super) struct OverlapCheck {
    /// Those, as long as nothing is `new`; else the ones of the step that is looked at.
    spans: Vec<Span>,
    /// So many of them have come again.
    seen: usize,
    /// Whether another came.
    new: bool,
    sorted: Vec<Span>,
}

impl OverlapCheck {
    pub(super) fn clear(&mut self) {
        if self.new {
            self.spans.clear();
        }
        (self.seen, self.new) = (0, false);
    }

    #[inline(always)]
    pub(super) fn push(&mut self, span: Span) {
        if span.bytes == 0 {
            return;
        }
        if !self.new {
            if self.spans.get(self.seen) == Some(&span) {
                self.seen += 1;
                return;
            }
            self.spans.truncate(self.seen);
            self.new = true;
        }
        self.spans.push(span);
    }

    /// Two arrays that overlap and one of which a step writes. `own` gives the arrays of a tensor that
    /// stay where they are, and so need not be looked at in every step.
    pub(super) fn find<I: Iterator<Item = Span>>(
        &mut self,
        own: impl Fn(usize) -> I,
    ) -> Option<(Span, Span)> {
        if !self.new {
            // Some of those that are known to be disjoint, at least.
            return None;
        }
        self.sorted.clone_from(&self.spans);
        let mut last = None;
        for span in &self.spans {
            if last != Some(span.tensor) {
                last = Some(span.tensor);
                self.sorted.extend(own(span.tensor));
            }
        }
        self.sorted.sort_unstable_by_key(|span| span.start);
        // Of the spans that start at or before the one looked at, those that reach furthest.
        let (mut written, mut read): (Option<Span>, Option<Span>) = (None, None);
        let end = |span: &Span| span.start.saturating_add(span.bytes);
        for span in &self.sorted {
            let writes = span.what.is_written();
            let reaches = |other: &Option<Span>| other.filter(|other| end(other) > span.start);
            let clash = reaches(&written).or_else(|| reaches(&read).filter(|_| writes));
            if let Some(other) = clash {
                return Some((other, *span));
            }
            let furthest = if writes { &mut written } else { &mut read };
            if furthest.is_none_or(|other| end(&other) < end(span)) {
                *furthest = Some(*span);
            }
        }
        self.new = false;
        None
    }
}
