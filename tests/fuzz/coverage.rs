//! Which code an input reached, where the build counts it: `.ci/fuzz-with-coverage` compiles our own crate with `-C instrument-coverage`, which
//! stable Rust has, and leaves everybody else's as it is. The counters lie in this process, so no tool reads them; in other builds all
//! of this is nothing.

#[cfg(fuzz_coverage)]
mod counters {
    use std::cell::RefCell;

    #[expect(unsafe_code, reason = "the compiler's own runtime says where its counters are")]
    unsafe extern "C" {
        fn __llvm_profile_begin_counters() -> *mut u64;
        fn __llvm_profile_end_counters() -> *mut u64;
    }

    thread_local! {
        static SEEN: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    }

    /// The counters of this process. Run with `--test-threads=1`: they belong to all threads.
    #[expect(unsafe_code, reason = "they are plain numbers between two fixed addresses; a torn read would only lose an input")]
    fn all() -> &'static mut [u64] {
        unsafe {
            let (begin, end) = (__llvm_profile_begin_counters(), __llvm_profile_end_counters());
            std::slice::from_raw_parts_mut(begin, end.offset_from(begin) as usize)
        }
    }

    pub fn begin() {
        all().fill(0);
    }

    /// Was something reached that never was, or ten times as often?
    pub fn new() -> bool {
        SEEN.with_borrow_mut(|seen| {
            let counters = all();
            seen.resize(counters.len(), 0);
            let mut new = false;
            for (count, seen) in counters.iter().zip(seen) {
                if *count == 0 {
                    continue;
                }
                let bit = 1u16 << (u64::BITS - count.leading_zeros()).min(16).saturating_sub(1);
                new |= *seen & bit == 0;
                *seen |= bit;
            }
            new
        })
    }

    pub fn said() -> String {
        SEEN.with_borrow(|seen| format!(", {} of {} places in the code reached", seen.iter().filter(|s| **s != 0).count(), seen.len()))
    }
}

#[cfg(not(fuzz_coverage))]
mod counters {
    pub fn begin() {}

    pub fn new() -> bool {
        false
    }

    pub fn said() -> String {
        String::new()
    }
}

pub use counters::{begin, new, said};
