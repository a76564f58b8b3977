//! Work over threads: the calling thread takes part, and small work stays on it.

use super::call::Call;
use crate::error::Error;
use crate::kernel::fp_env::FpEnv;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::error::Error as _;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Below this many elements waking threads costs more than it saves.
const MIN_PARALLEL_LEN: usize = 1 << 17;
/// Pieces a thread: enough that one that is late does not keep the others waiting.
const PIECES_PER_THREAD: usize = 8;
/// Blocks of the smallest piece.
const MIN_PIECE: usize = 4;

/// Threads that a program has already, for large steps to run on: see
/// [`Optimizer::set_executor`](crate::Optimizer::set_executor).
pub trait Executor: std::fmt::Debug + Send + Sync {
    /// Calls `work(index)` once for each `index` below `n`, as many at once as it can, and returns when
    /// all calls have returned.
    ///
    /// That is what is fastest; nothing but time depends on it. Calls that are not made are done by
    /// those that are, or by the caller after `run`; a call too many does nothing. An `index` that is on the
    /// same thread in every step finds in its caches what it had there before.
    fn run(&self, n: usize, work: &(dyn Fn(usize) + Sync));
}

/// Where a step's threads come from.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The calling thread included; 0 takes rayon's current pool.
    threads: usize,
    /// Made when first needed, and again in a forked child, which has no threads; with the process
    /// that made it.
    pool: Option<(u32, ThreadPool)>,
    /// In place of all those, in the process that it was given in.
    executor: Option<(u32, Box<dyn Executor>)>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.forget_parents();
    }
}

impl Threads {
    /// `0` takes rayon's current pool.
    pub(crate) fn new(threads: usize) -> Self {
        Threads { threads, pool: None, executor: None }
    }

    pub(crate) fn set_executor(&mut self, executor: Option<Box<dyn Executor>>) {
        self.forget_parents();
        self.executor = executor.map(|executor| (std::process::id(), executor));
    }

    /// Threads that an executor is asked for.
    fn wanted(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            wanted => wanted,
        }
    }

    /// A forked child does not have the threads of its parent's.
    fn executor(&self) -> Option<&dyn Executor> {
        let (given_in, executor) = self.executor.as_ref()?;
        (*given_in == std::process::id()).then_some(executor.as_ref())
    }

    /// Forgets what another process made or gave: a parent's threads are not in its child, so that a pool
    /// of them could not even be dropped.
    fn forget_parents(&mut self) {
        let this = std::process::id();
        if self.pool.as_ref().is_some_and(|(made_by, _)| *made_by != this) {
            std::mem::forget(self.pool.take());
        }
        if self.executor.as_ref().is_some_and(|(given_in, _)| *given_in != this) {
            std::mem::forget(self.executor.take());
        }
    }

    /// Makes sure that a step over `len` elements has its threads.
    ///
    /// # Errors
    /// [`Error::Threads`] where the system gives none.
    pub(crate) fn prepare(&mut self, len: usize) -> Result<(), Error> {
        let inside = rayon::current_thread_index().is_some();
        if len < MIN_PARALLEL_LEN || inside || self.threads == 1 || self.executor().is_some() {
            return Ok(());
        }
        if self.threads == 0 {
            return make_global();
        }
        self.forget_parents();
        if self.pool.is_some() {
            return Ok(());
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.threads - 1)
            .thread_name(|i| format!("dadapt-{}", i + 1))
            .build()
            .map_err(|e| Error::Threads { threads: self.threads, reason: e.to_string() })?;
        self.pool = Some((std::process::id(), pool));
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
    let work = |index| work(Pieces::new(&homes, size, index));
    let Source::Executor(executor) = crew.source else {
        let index = || rayon::current_thread_index().map_or(0, |index| index + 1);
        return Call::run(crew.source.pool(), crew.helpers, &|| work(index()));
    };
    let panic = Mutex::new(None);
    executor.run(workers, &|index| {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _env = FpEnv::set_default();
            work(index % workers);
        }));
        if let Err(caught) = outcome {
            *panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(caught);
        }
    });
    if let Some(panic) = panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
    if homes.iter().any(Home::has_more) {
        work(0);
    }
}

/// What a step runs on beside its own thread.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// rayon's current pool.
    Current,
    Pool(&'a ThreadPool),
    Executor(&'a dyn Executor),
}

impl<'a> Source<'a> {
    fn pool(&self) -> Option<&'a ThreadPool> {
        match self {
            Source::Pool(pool) => Some(pool),
            _ => None,
        }
    }
}

/// The threads that a step gets beside its own.
struct Crew<'a> {
    source: Source<'a>,
    helpers: usize,
    /// What it adds to [`RUNNING`].
    counted: usize,
}

/// Threads in steps that run now on pools of optimizers' own or on executors. A step that finds others
/// running leaves them their share: together they take as many threads as one alone. (Speed only; the
/// bits of a step do not depend on its threads.) With the process, in the upper half: a child that was forked within a
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
        let alone = Crew { source: Source::Current, helpers: 0, counted: 0 };
        // Before anything is asked of rayon, whose global pool that would make.
        if len < MIN_PARALLEL_LEN || threads.threads == 1 {
            return alone;
        }
        let inside = rayon::current_thread_index().is_some();
        let (wanted, source) = match (threads.executor(), &threads.pool) {
            (Some(executor), _) => (threads.wanted(), Source::Executor(executor)),
            // Threads of a pool that the program has made: another pool would compete with it.
            _ if threads.threads == 0 || inside => {
                let there = rayon::current_num_threads();
                let wanted = if threads.threads == 0 { there } else { threads.threads };
                return Crew { helpers: wanted.min(there) - 1, ..alone };
            }
            (None, Some((_, pool))) => (threads.threads, Source::Pool(pool)),
            (None, None) => return alone,
        };
        let helpers = |others: usize| (wanted - 1).saturating_sub(others);
        let helpers = helpers(count_running(|others| others + 1 + helpers(others)));
        Crew { source, helpers, counted: helpers + 1 }
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

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.end
    }

    fn take(&self, size: usize) -> Option<Range<usize>> {
        // Looked at first, so that a counter cannot run away.
        if !self.has_more() {
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
                assert!(own.pool.is_none());
                let crew = Crew::gather(&own, LONG);
                assert_eq!((crew.helpers, crew.source.pool().is_none()), (helpers, true));
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
