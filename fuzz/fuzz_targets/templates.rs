//! `--format`: no template and no data may panic, run on, or make more text than is sensible; what is accepted
//! once is accepted again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use template::{Functions, Template, Value};

// The command line is a program, so its module is compiled in here.
#[allow(dead_code, unused_imports, reason = "the command line uses all of it")]
#[path = "../../crates/cli/src/template/mod.rs"]
mod template;

fuzz_target!(|input: (&str, &str)| {
    let (source, text) = input;
    let parsed = match Template::parse(source) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let Ok(value) = Value::of(&json) else { return };
    for functions in [Functions::Data, Functions::Header] {
        let first = parsed.render(&value, functions).map_err(|error| error.to_string());
        let again = parsed.render(&value, functions).map_err(|error| error.to_string());
        assert_eq!(first, again);
    }
});
