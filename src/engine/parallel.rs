//! Work over threads: the calling thread takes part, and small work stays on it.

use super::call::Call;
use crate::error::Error;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::error::Error as _;
use std::num::NonZero;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Below this many elements waking threads costs more than it saves.
const MIN_PARALLEL_LEN: usize = 1 << 17;
/// Pieces a thread: enough that one that is late does not keep the others waiting.
const PIECES_PER_THREAD: usize = 8;
/// Blocks of the smallest piece.
const MIN_PIECE: usize = 4;

/// Where a step's threads come from.
#[derive(Debug)]
pub(crate) enum Threads {
    /// rayon's current pool.
    Current,
    /// A pool of the optimizer's own.
    Own(OwnPool),
}

/// A pool that is made when first needed, and again in a forked child, which has no threads.
#[derive(Debug)]
pub(crate) struct OwnPool {
    /// The calling thread included.
    threads: usize,
    /// With the process that made it.
    pool: Option<(u32, ThreadPool)>,
}

impl OwnPool {
    /// Forgets a pool that another process made: a parent's threads are not in its child, so that
    /// pool could not even be dropped.
    fn forget_parents(&mut self) {
        if self.pool.as_ref().is_some_and(|(made_by, _)| *made_by != std::process::id()) {
            std::mem::forget(self.pool.take());
        }
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        self.forget_parents();
    }
}

impl Threads {
    /// `0` takes rayon's current pool.
    pub(crate) fn new(threads: usize) -> Self {
        match threads {
            0 => Threads::Current,
            threads => Threads::Own(OwnPool { threads, pool: None }),
        }
    }

    /// Makes sure that a step over `len` elements has its threads.
    ///
    /// # Errors
    /// [`Error::Threads`] where the system gives none.
    pub(crate) fn prepare(&mut self, len: usize) -> Result<(), Error> {
        if len < MIN_PARALLEL_LEN || rayon::current_thread_index().is_some() {
            return Ok(());
        }
        let own = match self {
            Threads::Current => return make_global(),
            Threads::Own(own) if own.threads < 2 => return Ok(()),
            Threads::Own(own) => own,
        };
        own.forget_parents();
        if own.pool.is_some() {
            return Ok(());
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(own.threads - 1)
            .thread_name(|i| format!("dadapt-{}", i + 1))
            .build()
            .map_err(|e| Error::Threads { threads: own.threads, reason: e.to_string() })?;
        own.pool = Some((std::process::id(), pool));
        Ok(())
    }
}

/// Makes rayon's pool of the program, where nobody has. Its first use would, and panic where it cannot.
fn make_global() -> Result<(), Error> {
    static FAILURE: OnceLock<Option<String>> = OnceLock::new();
    let failure = FAILURE.get_or_init(|| {
        let error = ThreadPoolBuilder::new().build_global().err()?;
        // Of a pool that is there already, the system has said nothing.
        error.source().map(ToString::to_string)
    });
    let Some(reason) = failure else { return Ok(()) };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    Err(Error::Threads { threads, reason: reason.clone() })
}

/// Hands out `blocks` in ranges, each once, to every thread that calls `work`.
///
/// `work` runs once on each thread that takes part and iterates over the ranges it gets: first those
/// of its home, which is the same in every step, then what others have not come to yet.
pub(crate) fn for_each_piece(
    threads: &Threads,
    blocks: usize,
    len: usize,
    work: impl Fn(Pieces<'_>) + Sync,
) {
    let crew = Crew::gather(threads, len);
    if crew.helpers == 0 {
        work(Pieces::all(blocks));
        return;
    }
    let workers = crew.helpers + 1;
    let size = (blocks / (workers * PIECES_PER_THREAD)).max(MIN_PIECE);
    let homes: Vec<Home> =
        (0..workers).map(|i| Home::new(blocks * i / workers, blocks * (i + 1) / workers)).collect();
    let index = || rayon::current_thread_index().map_or(0, |index| index + 1);
    Call::run(crew.pool, crew.helpers, &|| work(Pieces::new(&homes, size, index())));
}

/// The threads that a step gets beside its own.
struct Crew<'a> {
    /// `None`: rayon's current pool.
    pool: Option<&'a ThreadPool>,
    helpers: usize,
    /// What it adds to [`RUNNING`].
    counted: usize,
}

/// Threads in steps that run now on pools of optimizers' own. A step that finds others running leaves
/// them their share: together they take as many threads as one alone. (Speed only; the bits of a step
/// do not depend on its threads.) With the process, in the upper half: a child that was forked within a
/// step of another thread's has none of what its parent counted.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Changes the count of this process.
fn count_running(change: impl Fn(usize) -> usize) -> usize {
    let process = u64::from(std::process::id()) << 32;
    let mine = |packed: u64| match packed ^ process {
        count if count >> 32 == 0 => count as usize,
        _ => 0,
    };
    let changed = |packed| Some(process | change(mine(packed)) as u32 as u64);
    let before = RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    mine(before.unwrap_or_else(|packed| packed))
}

impl<'a> Crew<'a> {
    fn gather(threads: &'a Threads, len: usize) -> Self {
        let alone = Crew { pool: None, helpers: 0, counted: 0 };
        let inside = rayon::current_thread_index().is_some();
        match threads {
            _ if len < MIN_PARALLEL_LEN => alone,
            Threads::Current => Crew { helpers: rayon::current_num_threads() - 1, ..alone },
            // Threads of a pool that the program has made: another pool would compete with it.
            Threads::Own(own) if inside => {
                Crew { helpers: own.threads.min(rayon::current_num_threads()) - 1, ..alone }
            }
            Threads::Own(OwnPool { threads, pool: Some((_, pool)) }) => {
                let helpers = |others: usize| (threads - 1).saturating_sub(others);
                let helpers = helpers(count_running(|others| others + 1 + helpers(others)));
                Crew { pool: Some(pool), helpers, counted: helpers + 1 }
            }
            Threads::Own(_) => alone,
        }
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        if self.counted > 0 {
            count_running(|running| running.saturating_sub(self.counted));
        }
    }
}

/// The blocks that one worker starts with, and how many of them are taken.
#[repr(align(128))] // a cache line and its neighbour, so that counters do not meet
struct Home {
    next: AtomicUsize,
    end: usize,
    claimed: AtomicBool,
}

impl Home {
    fn new(start: usize, end: usize) -> Self {
        Home { next: AtomicUsize::new(start), end, claimed: AtomicBool::new(false) }
    }

    fn take(&self, size: usize) -> Option<Range<usize>> {
        // Looked at first, so that a counter cannot run away.
        if self.next.load(Ordering::Relaxed) >= self.end {
            return None;
        }
        let start = self.next.fetch_add(size, Ordering::Relaxed);
        (start < self.end).then(|| start..self.end.min(start + size))
    }
}

/// The ranges of blocks that a thread gets.
pub(crate) struct Pieces<'a> {
    homes: &'a [Home],
    size: usize,
    /// The home that it takes from, and how many it has seen empty.
    at: usize,
    seen: usize,
    /// All there is, of a thread that works alone.
    alone: Option<Range<usize>>,
}

impl<'a> Pieces<'a> {
    fn all(blocks: usize) -> Self {
        Pieces { homes: &[], size: 0, at: 0, seen: 0, alone: Some(0..blocks) }
    }

    /// All blocks, where no other thread takes part.
    pub(crate) fn alone(&self) -> Option<Range<usize>> {
        self.alone.clone()
    }

    /// From the preferred home on, or from the next that nobody has claimed.
    fn new(homes: &'a [Home], size: usize, preferred: usize) -> Self {
        let mut from = (0..homes.len()).map(|i| (preferred + i) % homes.len());
        let at = from.find(|at| !homes[*at].claimed.swap(true, Ordering::Relaxed));
        Pieces { homes, size, at: at.unwrap_or(0), seen: 0, alone: None }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while self.seen < self.homes.len() {
            let piece = self.homes[self.at].take(self.size);
            if piece.is_some() {
                return piece;
            }
            self.at = (self.at + 1) % self.homes.len();
            self.seen += 1;
        }
        self.alone.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = MIN_PARALLEL_LEN;

    fn own(threads: usize) -> Threads {
        let mut own = Threads::new(threads);
        own.prepare(LONG).unwrap();
        own
    }

    #[test]
    fn steps_at_once_share_the_threads_of_one() {
        let (first, second) = (own(4), own(4));
        let alone = Crew::gather(&first, LONG);
        assert_eq!(alone.helpers, 3);
        let beside = Crew::gather(&second, LONG);
        assert_eq!(beside.helpers, 0);
        drop(alone);
        // The other one still runs, on its own thread only.
        let again = Crew::gather(&first, LONG);
        assert_eq!(again.helpers, 2);
        drop((beside, again));
        assert_eq!(Crew::gather(&second, LONG).helpers, 3);
        assert_eq!(Crew::gather(&second, LONG - 1).helpers, 0);
    }

    #[test]
    fn inside_a_pool_its_threads_are_taken_and_none_made() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| {
            for (threads, helpers) in [(2, 1), (8, 2)] {
                let own = own(threads);
                assert!(matches!(&own, Threads::Own(own) if own.pool.is_none()));
                let crew = Crew::gather(&own, LONG);
                assert_eq!((crew.helpers, crew.pool.is_none()), (helpers, true));
            }
        });
    }

    #[test]
    fn every_block_is_given_once_and_homes_come_first() {
        let homes = [Home::new(0, 10), Home::new(10, 25)];
        let mut second = Pieces::new(&homes, 4, 1);
        assert_eq!(second.next(), Some(10..14));
        // The preferred home is taken: the other one.
        let first = Pieces::new(&homes, 4, 1);
        let got: Vec<_> = first.flatten().collect();
        assert_eq!(got, (0..10).chain(14..25).collect::<Vec<_>>());
        assert_eq!(second.next(), None);
    }
}
