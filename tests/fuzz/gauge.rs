//! What a decoder costs: the most memory it held at once, and its time. Memory is counted by the allocator of this test binary, for each
//! thread by itself, since tests run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    /// Bytes held; what other threads give back to us or take from us makes it drift, so only differences count.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends may free after its locals are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "every allocation passes through here and nowhere else; each call is handed on unchanged")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may exist side by side while bytes move.
        count(size as isize);
        count(-(layout.size() as isize));
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Adds up what the decoding of one input costs.
#[derive(Default, Debug)]
pub struct Gauge {
    pub memory: usize,
    pub time: Duration,
    /// Measure the processor's time: exact, but asking costs more than most inputs do. Else time that goes by, which others may lengthen.
    pub exact: bool,
}

/// Processor time of this thread so far, where the system tells.
fn processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

impl Gauge {
    /// Runs what is to be measured: the decoding, not what the test does with its outcome.
    pub fn decode<T>(&mut self, decode: impl FnOnce() -> T) -> T {
        let processor_before = if self.exact { processor() } else { None };
        let before = HELD.with(Cell::get);
        MOST.with(|most| most.set(before));
        let began = Instant::now();
        let outcome = decode();
        let went_by = began.elapsed();
        // Before anything else is allocated here.
        self.memory = self.memory.max((MOST.with(Cell::get) - before).max(0) as usize);
        self.time += processor_before.and_then(|before| processor()?.checked_sub(before)).unwrap_or(went_by);
        outcome
    }
}

/// What one input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes of memory that any input may take.
    pub base: usize,
    /// And for each of its bytes.
    pub per_byte: usize,
    /// Time that any input may take; a mebibyte may take a second more.
    pub time: Duration,
}

impl Bound {
    pub const USUAL: Self = Self { base: 16 * 1024, per_byte: 24, time: Duration::from_millis(40) };

    pub fn memory(&self, input: usize) -> usize {
        self.base + self.per_byte * input
    }

    pub fn time(&self, input: usize) -> Duration {
        self.time + Duration::from_micros(input as u64)
    }
}
