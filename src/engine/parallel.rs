//! Work over threads: the calling thread takes part, and small work stays on it.

use crate::error::Error;
use crate::kernel::fp_env::FpEnv;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below this many elements waking threads costs more than it saves.
const MIN_PARALLEL_LEN: usize = 1 << 16;
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
        let Threads::Own(own) = self else { return Ok(()) };
        if own.threads < 2 || len < MIN_PARALLEL_LEN {
            return Ok(());
        }
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

/// Hands out `blocks` in ranges, each once, to every thread that calls `work`.
///
/// `work` runs once on each thread that takes part and iterates over the ranges it gets.
pub(crate) fn for_each_piece(
    threads: &Threads,
    blocks: usize,
    len: usize,
    work: impl Fn(Pieces<'_>) + Sync,
) {
    let next = AtomicUsize::new(0);
    let helpers = match threads {
        _ if len < MIN_PARALLEL_LEN => 0,
        Threads::Current => rayon::current_num_threads() - 1,
        Threads::Own(own) => own.threads - 1,
    };
    if helpers == 0 {
        work(Pieces { next: &next, size: blocks.max(1), blocks });
        return;
    }
    let size = (blocks / ((helpers + 1) * PIECES_PER_THREAD)).max(MIN_PIECE);
    let (next, work) = (&next, &work);
    match threads {
        Threads::Current => rayon::in_place_scope(|scope| {
            share(scope, helpers, move || work(Pieces { next, size, blocks }));
        }),
        Threads::Own(own) => {
            let (_, pool) = own.pool.as_ref().expect("`prepare` made it");
            pool.in_place_scope(|scope| {
                share(scope, helpers, move || work(Pieces { next, size, blocks }));
            });
        }
    }
}

/// Runs `work` on so many threads of the scope's pool and on this one.
fn share<'scope>(
    scope: &rayon::Scope<'scope>,
    helpers: usize,
    work: impl Fn() + Copy + Send + 'scope,
) {
    for _ in 0..helpers {
        scope.spawn(move |_| {
            let _env = FpEnv::set_default();
            work();
        });
    }
    work();
}

/// The ranges of blocks that a thread gets.
pub(crate) struct Pieces<'a> {
    next: &'a AtomicUsize,
    size: usize,
    blocks: usize,
}

impl Iterator for Pieces<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next.fetch_add(self.size, Ordering::Relaxed);
        (start < self.blocks).then(|| start..self.blocks.min(start + self.size))
    }
}
