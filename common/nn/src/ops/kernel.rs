//! Loops for the vector instructions of the machine that runs them: a shipped program is built for the oldest one.
//!
//! AVX-512 and AVX2 with FMA are looked for at run time, NEON is part of its architecture; elsewhere portable code runs,
//! which is also what the vector code is tested against. Elementwise loops give the same bits everywhere, because they
//! round after every operation; products do not, because FMA rounds once, unless [`with_arithmetic`] asks for portable
//! ones.
#![expect(unsafe_code, reason = "a function compiled for more instructions may be called only where they exist")]

mod bytes;
mod functions;
mod lists;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod portable;
mod product;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use bytes::ByteProducts;
pub(super) use lists::{COLUMNS, Lists};
pub(super) use product::{Start, Strided, Sum};

use candle_core::WithDType;
use dunlin_core::recipe::Arithmetic;
use functions::Transcendental;
use std::cell::Cell;

/// What the layers compute in: `f32` trains, `f64` checks gradients and is never hurried.
pub(super) trait Float: Multiply + Transcendental {
    /// Runs a kernel with the vectors of this machine.
    ///
    /// # Safety
    /// That of the kernel.
    unsafe fn run<K: Kernel<Self>>(kernel: K);
}

impl Float for f32 {
    unsafe fn run<K: Kernel<Self>>(kernel: K) {
        // SAFETY: the instructions exist, and the caller vouches for the kernel.
        unsafe {
            match (Instructions::here(), ARITHMETIC.get()) {
                #[cfg(target_arch = "x86_64")]
                (Instructions::Avx512, Arithmetic::Fast) => x86::run_avx512::<x86::Avx512, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Instructions::Avx512, Arithmetic::Portable) => {
                    x86::run_avx512::<tile::Portable<x86::Avx512>, K>(kernel);
                }
                #[cfg(target_arch = "x86_64")]
                (Instructions::Avx2, Arithmetic::Fast) => x86::run_avx2::<x86::Avx2, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Instructions::Avx2, Arithmetic::Portable) => x86::run_avx2::<tile::Portable<x86::Avx2>, K>(kernel),
                #[cfg(target_arch = "aarch64")]
                (Instructions::Neon, Arithmetic::Fast) => kernel.run::<neon::Neon>(),
                #[cfg(target_arch = "aarch64")]
                (Instructions::Neon, Arithmetic::Portable) => kernel.run::<tile::Portable<neon::Neon>>(),
                (Instructions::Portable, _) => kernel.run::<portable::Lanes<Self>>(),
            }
        }
    }
}

impl Float for f64 {
    unsafe fn run<K: Kernel<Self>>(kernel: K) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run::<portable::Lanes<Self>>() }
    }
}

/// Loops over vectors, whatever these are.
pub(super) trait Kernel<T> {
    /// Runs it; inlined into a function that is compiled for the instructions.
    ///
    /// # Safety
    /// The vectors' instructions exist, and all memory that the kernel describes does.
    unsafe fn run<V: tile::FloatVector<Element = T>>(self);
}

/// What sums of products are taken of.
pub(super) trait Multiply: WithDType {
    /// Columns of the widest tile on this machine.
    fn panel_width() -> usize;

    /// The sum of products on this machine.
    ///
    /// # Safety
    /// Every element that the operands describe can be read, and every element of the result written.
    unsafe fn sum_of_products(operands: &tile::Operands<Self>);
}

impl Multiply for f32 {
    fn panel_width() -> usize {
        match Instructions::here() {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => 16,
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => 8,
            Instructions::Portable => 8,
        }
    }

    unsafe fn sum_of_products(operands: &tile::Operands<Self>) {
        // SAFETY: the caller vouches for the operands.
        unsafe { Self::run(operands) }
    }
}

impl Multiply for f64 {
    fn panel_width() -> usize {
        8
    }

    unsafe fn sum_of_products(operands: &tile::Operands<Self>) {
        // SAFETY: the caller vouches for the operands.
        unsafe { Self::run(operands) }
    }
}

/// The vector instructions to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Instructions {
    /// The best that this machine has; the answer is cached by the standard library.
    fn here() -> Self {
        #[cfg(test)]
        if AS_ON_ANY_MACHINE.get() {
            return Self::Portable;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        Self::Portable
    }
}

/// Runs a loop as compiled for this machine; the closure has to be `#[inline(always)]` and everything hot in it inlined.
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    match Instructions::here() {
        // SAFETY: the instructions exist.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { x86::with_avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { x86::with_avx2(work) },
        // The compiler knows of them anyway.
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => work(),
        Instructions::Portable => work(),
    }
}

thread_local! {
    /// How products are rounded on this thread. An operation of candle's has no argument for it, and two models of one
    /// process may differ in it.
    static ARITHMETIC: Cell<Arithmetic> = const { Cell::new(Arithmetic::Fast) };

    /// Whether this thread does without vector instructions, to compare with.
    #[cfg(test)]
    static AS_ON_ANY_MACHINE: Cell<bool> = const { Cell::new(false) };
}

/// Does some work, whose products on this thread are rounded as asked.
pub(crate) fn with_arithmetic<R>(arithmetic: Arithmetic, work: impl FnOnce() -> R) -> R {
    with(&ARITHMETIC, arithmetic, work)
}

/// Does some work without vector instructions.
#[cfg(test)]
pub(crate) fn as_on_any_machine<R>(work: impl FnOnce() -> R) -> R {
    with(&AS_ON_ANY_MACHINE, true, work)
}

/// Whether fast products are rounded once on this machine.
#[cfg(test)]
pub(crate) fn fuses() -> bool {
    Instructions::here() != Instructions::Portable
}

/// Sets a cell of this thread for as long as the work lasts, also when that panics.
fn with<T: Copy + 'static, R>(cell: &'static std::thread::LocalKey<Cell<T>>, value: T, work: impl FnOnce() -> R) -> R {
    struct Reset<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);

    impl<T: Copy> Drop for Reset<T> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }

    let _reset = Reset(cell, cell.replace(value));
    work()
}
