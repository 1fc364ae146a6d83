//! What processes keep in their registers.

use bulkhead_e2e::{Bulkhead, User, guest_program, layer};

/// On user-mode the registers stay with the process on the host until another thread runs or somebody wants to see
/// them. guest/vector.c looks at all of the ways in which somebody may.
#[test]
fn vector_registers_survive_threads_forks_signals_and_tracers() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    let Some(program) = guest_program("vector") else {
        return;
    };
    b.command(&["import", "-", "vectors"])
        .with_input(layer(&[("vector", program)]))
        .finish()
        .ok();
    let said = b.run(&["run", "--rm", "vectors", "/vector"]).ok().text();
    assert_eq!(
        said,
        "lost: threads 0, processes 0, forks 0, signals 0, tracing 0"
    );
    b.expect_nothing_left();
}
