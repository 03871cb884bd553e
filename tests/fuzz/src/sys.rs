// SPDX-License-Identifier: GPL-2.0

//! System calls with arguments that may be bad, and accesses that may fault, behind safe functions.
//!
//! The kernel may be handed any address here, but is only ever given those of an [`Arena`], of
//! mappings in it, and such as are nobody's. So whatever it does to them, memory of the program
//! itself stays as it is.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

/// A value of errno.
pub type Errno = i32;
/// What a system call came to.
pub type Outcome<T = u64> = Result<T, Errno>;

/// Bytes of a CPU page of the kernels that run here.
pub const PAGE: usize = 0x1_0000;

fn errno() -> Errno {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

fn outcome(value: i64) -> Outcome {
    u64::try_from(value).map_err(|_| errno())
}

/// What a call that returns an address (or -1) returned.
fn address(value: *mut libc::c_void) -> Outcome<usize> {
    if value == libc::MAP_FAILED {
        return Err(errno());
    }
    Ok(value as usize)
}

/// An ioctl number of VFIO.
pub const fn vfio(number: u32) -> libc::Ioctl {
    libc::_IO(b';' as u32, 100 + number)
}

/// An ioctl number of KVM without argument.
pub const fn kvm(number: u32) -> libc::Ioctl {
    libc::_IO(0xae, number)
}

/// An ioctl number of KVM that reads `N` bytes.
pub const fn kvm_write<const N: usize>(number: u32) -> libc::Ioctl {
    libc::_IOW::<[u8; N]>(0xae, number)
}

/// An ioctl number of KVM that reads and writes `N` bytes.
pub const fn kvm_read_write<const N: usize>(number: u32) -> libc::Ioctl {
    libc::_IOWR::<[u8; N]>(0xae, number)
}

/// `argument` is a number, or an address as the module's documentation says.
pub fn ioctl(fd: RawFd, request: libc::Ioctl, argument: usize) -> Outcome {
    // SAFETY: at `argument` is nothing that belongs to Rust's memory, see the module.
    outcome(unsafe { libc::ioctl(fd, request, argument) }.into())
}

/// Takes over a descriptor that a system call returned.
pub fn adopt(fd: u64) -> OwnedFd {
    // SAFETY: callers pass what a system call that makes a descriptor has just returned.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Reads into the `len` bytes at an address as the module's documentation says.
pub fn pread(fd: RawFd, to: usize, len: usize, offset: u64) -> Outcome {
    // SAFETY: see `ioctl`.
    outcome(unsafe { libc::pread64(fd, to as *mut libc::c_void, len, offset as i64) } as i64)
}

/// Writes the `len` bytes at an address as the module's documentation says.
pub fn pwrite(fd: RawFd, from: usize, len: usize, offset: u64) -> Outcome {
    // SAFETY: see `ioctl`.
    outcome(unsafe { libc::pwrite64(fd, from as *const libc::c_void, len, offset as i64) } as i64)
}

/// Moves 8 bytes through a pipe, from or to an address as the module's documentation says.
pub fn through_pipe(at: usize, write: bool) -> Outcome {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    outcome(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }.into())?;
    let (reader, writer) = (adopt(ends[0] as u64), adopt(ends[1] as u64));
    let bytes = [0x5au8; 8];
    if write {
        // SAFETY: `bytes` is valid for reads; for `at` see `ioctl`.
        unsafe {
            libc::write(writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
            outcome(libc::read(reader.as_raw_fd(), at as *mut libc::c_void, bytes.len()) as i64)
        }
    } else {
        // SAFETY: see `ioctl`.
        outcome(
            unsafe { libc::write(writer.as_raw_fd(), at as *const libc::c_void, bytes.len()) }
                as i64,
        )
    }
}

/// Maps `fd` at `at`, in the place of what is mapped there, which is the arena's.
pub fn map(at: usize, len: usize, prot: i32, flags: i32, fd: RawFd, offset: u64) -> Outcome<usize> {
    // SAFETY: callers pass ranges of the arena's reserve only.
    address(unsafe {
        libc::mmap64(
            at as *mut libc::c_void,
            len,
            prot,
            flags | libc::MAP_FIXED,
            fd,
            offset as i64,
        )
    })
}

/// Has nothing but a reservation of addresses in a range of the arena's.
pub fn reserve(at: usize, len: usize) -> Outcome<usize> {
    map(
        at,
        len,
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
        0,
    )
}

/// Unmaps a range of the arena's.
pub fn unmap(at: usize, len: usize) -> Outcome {
    // SAFETY: callers pass ranges of the arena's reserve only, which hold no Rust memory.
    outcome(unsafe { libc::munmap(at as *mut libc::c_void, len) }.into())
}

/// mremap(), within the arena.
pub fn remap(at: usize, old: usize, new: usize, to: usize) -> Outcome<usize> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both ranges are of the arena's reserve.
    address(unsafe {
        libc::mremap(
            at as *mut libc::c_void,
            old,
            new,
            flags,
            to as *mut libc::c_void,
        )
    })
}

/// mprotect(), within the arena.
pub fn protect(at: usize, len: usize, prot: i32) -> Outcome {
    // SAFETY: the range is of the arena's reserve.
    outcome(unsafe { libc::mprotect(at as *mut libc::c_void, len, prot) }.into())
}

/// madvise(), within the arena.
pub fn advise(at: usize, len: usize, advice: i32) -> Outcome {
    // SAFETY: the range is of the arena's reserve; no advice changes other memory.
    outcome(unsafe { libc::madvise(at as *mut libc::c_void, len, advice) }.into())
}

/// mlock() and munlock(), within the arena.
pub fn lock(at: usize, len: usize) -> Outcome {
    // SAFETY: neither changes memory.
    unsafe {
        let locked = outcome(libc::mlock(at as *const libc::c_void, len).into());
        libc::munlock(at as *const libc::c_void, len);
        locked
    }
}

/// A descriptor for counting events.
pub fn eventfd() -> Outcome<OwnedFd> {
    // SAFETY: no memory is involved.
    outcome(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into()).map(adopt)
}

/// A copy of descriptor `fd` of process `pid`.
pub fn steal(pid: i32, fd: RawFd) -> Outcome<OwnedFd> {
    // SAFETY: no memory is involved.
    unsafe {
        let process = adopt(outcome(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i64)?);
        outcome(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) as i64).map(adopt)
    }
}

/// Loads a module.
pub fn insert_module(fd: RawFd) -> Outcome {
    // SAFETY: the parameters are an empty string.
    outcome(unsafe { libc::syscall(libc::SYS_finit_module, fd, c"".as_ptr(), 0) } as i64)
}

/// Unloads a module if nobody uses it.
pub fn delete_module(name: &std::ffi::CStr) -> Outcome {
    // SAFETY: `name` is a string.
    outcome(
        unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) } as i64,
    )
}

/// Runs `what` in a child made by fork(), which has all mappings that are inherited. Returns its
/// exit status (128 and more: killed by a signal).
pub fn in_child(what: impl FnOnce() -> u8) -> Outcome {
    // SAFETY: this program has one thread, so the child may do whatever it could.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        // SAFETY: nothing of the parent's is to be cleaned up in the child.
        0 => unsafe { libc::_exit(what().into()) },
        pid => wait(pid),
    }
}

/// Waits for a child to end.
pub fn wait(pid: i32) -> Outcome {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    outcome(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    Ok(status_of(status))
}

/// Takes note of a child that ended, if one did: its process id and exit status.
pub fn reap() -> Option<(i32, u64)> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, status_of(status)))
}

fn status_of(status: i32) -> u64 {
    if libc::WIFSIGNALED(status) {
        return 128 + libc::WTERMSIG(status) as u64;
    }
    libc::WEXITSTATUS(status) as u64
}

/// Starts a process that runs `what` and ends with its result.
pub fn spawn(what: impl FnOnce() -> u8) -> Outcome<i32> {
    // SAFETY: see `in_child`.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        // SAFETY: see `in_child`.
        0 => unsafe { libc::_exit(what().into()) },
        pid => Ok(pid),
    }
}

/// Closes all descriptors from `first` on.
pub fn close_from(first: u32) {
    // SAFETY: callers are about to end, and use nothing that owns a descriptor any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Orphans of this process' descendants become its children.
pub fn adopt_orphans() -> Outcome {
    // SAFETY: no memory is involved.
    outcome(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }.into())
}

/// Kills a process.
pub fn kill(pid: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Milliseconds since the machine started.
pub fn milliseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

// An access that may fault is a single instruction, which the handler of the fault skips.

static ACCESSING: AtomicBool = AtomicBool::new(false);
static FAULT: AtomicI32 = AtomicI32::new(0);

#[cfg(target_arch = "powerpc64")]
extern "C" fn on_fault(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !ACCESSING.load(Ordering::Relaxed) {
        // A bug of this program: let it die of it, at the same instruction.
        // SAFETY: the default action is a valid one.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    FAULT.store(signal, Ordering::Relaxed);
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes the context of the faulting instruction; instructions have 4 bytes.
    unsafe { (*(*context).uc_mcontext.regs).nip += 4 };
}

/// Prepares this process for accesses that fault.
#[cfg(target_arch = "powerpc64")]
pub fn survive_faults() {
    // SAFETY: zero is a valid sigaction, and the handler has the type that SA_SIGINFO wants.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        for signal in [libc::SIGBUS, libc::SIGSEGV] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Prepares this process for accesses that fault: elsewhere there are none.
#[cfg(not(target_arch = "powerpc64"))]
pub fn survive_faults() {}

/// Loads or stores `size` (1, 2, 4 or 8) bytes at an address of the arena. The error is the signal
/// that it ended in.
pub fn touch(at: usize, size: u8, write: bool) -> Outcome {
    macro_rules! access {
        ($unit:ty) => {{
            let at = (at & !(size_of::<$unit>() - 1)) as *mut $unit;
            if write {
                at.write_volatile(0x5a5a_5a5a_5a5a_5a5a_u64 as $unit);
                0
            } else {
                u64::from(at.read_volatile())
            }
        }};
    }
    FAULT.store(0, Ordering::Relaxed);
    ACCESSING.store(true, Ordering::SeqCst);
    // SAFETY: the address is of the arena, where no Rust memory is, and aligned. A volatile access is
    // one instruction; if it faults it is skipped, and the value that was read is not used.
    let value = unsafe {
        match size {
            1 => access!(u8),
            2 => access!(u16),
            4 => access!(u32),
            _ => access!(u64),
        }
    };
    ACCESSING.store(false, Ordering::SeqCst);
    match FAULT.load(Ordering::Relaxed) {
        0 => Ok(value),
        signal => Err(signal),
    }
}

/// Memory that a process gives to the kernel, and addresses for mappings of devices.
///
/// Page 0 is scratch for arguments, then comes [`Arena::ORDINARY`] memory for DMA, a page that may
/// only be read, and one that is not mapped.
pub struct Arena {
    base: usize,
    next: usize,
}

impl Arena {
    /// Pages of ordinary memory.
    pub const ORDINARY: usize = 32;
    const RESERVE: usize = 8 << 40;
    const FIRST: usize = 1 << 30;

    /// Reserves addresses.
    pub fn new() -> Outcome<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED a mapping replaces nothing.
        let reserve = address(unsafe {
            libc::mmap64(
                std::ptr::null_mut(),
                Self::RESERVE,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        })?;
        let base = reserve.next_multiple_of(Self::FIRST);
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        map(
            base,
            (1 + Self::ORDINARY) * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            shared,
            -1,
            0,
        )?;
        let arena = Self {
            base,
            next: base + Self::FIRST,
        };
        map(arena.read_only(), PAGE, libc::PROT_READ, shared, -1, 0)?;
        Ok(arena)
    }

    /// Where the page for arguments is.
    pub fn scratch(&self) -> usize {
        self.base
    }

    /// Where page `page` of ordinary memory is.
    pub fn ordinary(&self, page: usize) -> usize {
        self.base + (1 + page) * PAGE
    }

    /// Where the page is that may only be read.
    pub fn read_only(&self) -> usize {
        self.ordinary(Self::ORDINARY)
    }

    /// Where a page is that is not mapped.
    pub fn unmapped(&self) -> usize {
        self.read_only() + PAGE
    }

    /// Addresses for `len` bytes: aligned to 1 GiB, or to a CPU page and no more.
    pub fn place(&mut self, len: usize, aligned: bool) -> Option<usize> {
        let len = len.next_multiple_of(PAGE);
        let start = self.next.next_multiple_of(Self::FIRST) + if aligned { 0 } else { PAGE };
        let end = start.checked_add(len)?;
        // A page in between, so that an access beyond the end is one.
        self.next = end + PAGE;
        (end < self.base + Self::RESERVE - Self::FIRST).then_some(start)
    }

    /// Puts `bytes` into the page for arguments and zeros behind them; returns its address.
    pub fn argument(&self, bytes: &[u8]) -> usize {
        let room = PAGE / 4;
        let len = bytes.len().min(room);
        // SAFETY: the page is mapped and writable, and nobody has a reference to it.
        unsafe {
            let scratch = self.base as *mut u8;
            scratch.write_bytes(0, room);
            scratch.copy_from_nonoverlapping(bytes.as_ptr(), len);
        }
        self.base
    }

    /// The `N` bytes at `offset` of the page for arguments.
    pub fn answer<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        let offset = offset.min(PAGE - N);
        // SAFETY: the bytes are in a mapped page that nobody has a reference to.
        unsafe {
            bytes
                .as_mut_ptr()
                .copy_from_nonoverlapping((self.base + offset) as *const u8, N)
        };
        bytes
    }

    /// The 32-bit number at `offset` of the page for arguments.
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.answer(offset))
    }

    /// The 64-bit number at `offset` of the page for arguments.
    pub fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.answer(offset))
    }
}

/// Anonymous memory that children share.
pub fn shared<T: Sync>() -> Outcome<&'static T> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED a mapping replaces nothing.
    let at = address(unsafe {
        libc::mmap64(
            std::ptr::null_mut(),
            size_of::<T>(),
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    })?;
    // SAFETY: the memory is zero, aligned to a page, never unmapped; `Shared` is the only `T`, made of
    // atomics, for which zero is a value.
    Ok(unsafe { &*(at as *const T) })
}
