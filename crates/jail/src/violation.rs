//! Names a forbidden system call before the process dies of it. Debug builds only: a release build is killed outright,
//! because a handler is something that an attacker inside could replace.

use std::io;

/// Installs the handler.
pub(crate) fn explain() -> io::Result<()> {
    // SAFETY: sigaction is plain data, for which zero is valid; the handler does what a handler may.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_violation as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Calls nothing but write, which every policy allows.
extern "C" fn on_violation(
    _signal: libc::c_int,
    information: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // _sigsys follows three integers and padding: an address (8 bytes), the call's number, the architecture.
    // SAFETY: the kernel passes a complete siginfo_t of 128 bytes; 24 lies within.
    let mut number = unsafe { information.cast::<u8>().add(24).cast::<i32>().read() };
    let mut text = *b"forbidden system call ....\n";
    for digit in text.iter_mut().rev().skip(1).take(4) {
        *digit = match number {
            0 => b' ',
            // A digit always fits.
            rest => b'0' + (rest % 10).unsigned_abs() as u8,
        };
        number /= 10;
    }
    // SAFETY: a live buffer. Then another call that no policy allows: the kernel forces its signal, whose default action
    // it has restored, also upon the first process of a namespace, which a signal sent to itself would not reach.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::syscall(libc::SYS_acct, std::ptr::null::<libc::c_char>());
    }
}
