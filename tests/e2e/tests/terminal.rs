//! Interactive use: a terminal that resizes, Ctrl-C, detach keys, and a shell left as it was found.

use std::time::Duration;

use bulkhead_e2e::{Terminal, each_user, sandbox_processes, wait_until};

fn signal(terminal: &Terminal, signal: i32) {
    // SAFETY: kill(2) has no memory effects; the child is not yet reaped, so the pid is ours.
    unsafe { libc::kill(i32::try_from(terminal.child.id()).unwrap(), signal) };
}

each_user! {
    a_shell_on_a_terminal(b) {
        let mut t = Terminal::start(b.process(&["run", "--rm", "-it", "busybox", "sh"]));
        t.expect("# ");
        t.send("tty; stty size; echo TERM=$TERM\r");
        t.expect("/dev/pts/0");
        t.expect("24 80");
        t.expect("TERM=xterm");
        t.resize(40, 132);
        t.send("sleep 0.3; stty size\r");
        t.expect("40 132");
        // One job says it and sleeps: between two of them a key would reach the shell alone, which goes on.
        t.send("sh -c 'echo asleep $((3 + 4)); exec sleep 100'\r");
        t.expect("asleep 7");
        t.send("\x03");
        t.send("echo after $((40 + 2))\r");
        t.expect("after 42");
        t.send("exit 3\r");
        assert_eq!(t.wait(), 3);
        assert!(t.is_cooked(), "raw mode was not undone");
        b.expect_nothing_left();
    }

    /// The terminal was made raw only when the process had begun to write: some first lines came as `\r\r\n`.
    the_first_line_comes_as_every_other(b) {
        let mut t = Terminal::start(b.process(&["run", "--rm", "-it", "busybox", "sh", "-c", "echo first; sleep 1; echo second"]));
        // The command stands still from the guest's boot on, so what it does later comes after the first line.
        assert!(wait_until(Duration::from_secs(30), || sandbox_processes(&b.root()).len() > 2));
        signal(&t, libc::SIGSTOP);
        t.expect("second");
        assert!(!t.shown().contains("\r\r\n"), "{:?}", t.shown());
        signal(&t, libc::SIGCONT);
        assert_eq!(t.wait(), 0);
        assert!(t.is_cooked(), "raw mode was not undone");
        b.expect_nothing_left();
    }

    a_terminal_is_given_back_when_nothing_starts(b) {
        for arguments in [&["run", "--rm", "-it", "busybox", "no-such-command"][..],
            &["run", "--rm", "-it", "--user", "no-such-user", "busybox", "true"]] {
            let mut t = Terminal::start(b.process(arguments));
            assert_ne!(t.wait(), 0);
            assert!(t.is_cooked(), "raw mode was not undone: {arguments:?}");
        }
        let mut command = b.process(&["run", "--rm", "-it", "busybox", "true"]);
        command.env("BULKHEAD_KERNEL", "/no/such/kernel");
        let mut t = Terminal::start(command);
        assert_eq!(t.wait(), 125);
        assert!(t.is_cooked(), "raw mode was not undone");
        b.expect_nothing_left();
    }

    detach_keys_leave_it_running(b) {
        let mut t = Terminal::start(b.process(&["run", "-it", "--name", "shell", "busybox", "sh"]));
        t.expect("# ");
        t.send("\x10\x11");
        assert_eq!(t.wait(), 0);
        assert!(t.is_cooked(), "raw mode was not undone");
        assert_eq!(b.inspect("shell")["State"]["Running"], true);
        let mut t = Terminal::start(b.process(&["attach", "--detach-keys", "ctrl-x,x", "shell"]));
        t.send("echo again $((1 + 1))\r");
        t.expect("again 2");
        t.send("\x18x");
        assert_eq!(t.wait(), 0);
        let mut t = Terminal::start(b.process(&["exec", "-it", "shell", "sh"]));
        t.expect("# ");
        t.send("tty; exit 8\r");
        assert_eq!(t.wait(), 8);
        b.run(&["rm", "-f", "shell"]).ok();
        b.expect_nothing_left();
    }

    ctrl_c_ends_a_foreground_run_without_a_terminal_inside(b) {
        let mut t = Terminal::start(b.process(&["run", "--rm", "--name", "loop", "busybox", "sh", "-c",
            "trap 'exit 9' INT; echo up; while :; do sleep 0.05; done"]));
        t.expect("up");
        t.send("\x03");
        assert_eq!(t.wait(), 9);
        b.expect_nothing_left();
    }

    a_terminal_is_asked_for_and_missed(b) {
        b.run(&["run", "--rm", "-it", "busybox", "sh"]).expect_code(1).says("the input device is not a TTY");
        b.run(&["ps", "-aq"]).ok();
    }
}
