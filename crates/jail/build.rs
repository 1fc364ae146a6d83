//! Compiles the seccomp policies under `policy/` to BPF, so that installing one costs one system call.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde_json::{Map, Value};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    println!("cargo::rerun-if-changed=policy");
    println!("cargo::rerun-if-changed=build.rs");
    let mut sandbox = read("policy/sandbox.json")?;
    let caught = env::var_os("CARGO_FEATURE_TRESPASS").is_some();
    if env::var("PROFILE")? == "debug" && !caught {
        trap(&mut sandbox);
    }
    let kernel = read("policy/kernel.json")?;

    let mut source = format!("const SELF: u32 = {SELF};\n");
    for thread in ["control", "device", "stream"] {
        let mut rules = rules(&sandbox, "runtime")?;
        rules.extend(self::rules(&sandbox, thread)?);
        emit(&mut source, thread, &sandbox, thread, &rules)?;
    }
    // Stand alone: what a thread with an event loop needs is not what these need.
    for thread in ["vcpu", "ahead"] {
        emit(
            &mut source,
            thread,
            &sandbox,
            thread,
            &rules(&sandbox, thread)?,
        )?;
    }
    emit_refusals(&mut source, "sandbox_refusals", &sandbox)?;
    emit(
        &mut source,
        "kernel",
        &kernel,
        "kernel",
        &rules(&kernel, "kernel")?,
    )?;
    emit_refusals(&mut source, "kernel_refusals", &kernel)?;
    write_filter(
        &mut source,
        "exposed",
        &kernel,
        "exposed",
        rules(&kernel, "exposed")?,
    )?;

    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("policy.rs"), source)?;
    Ok(())
}

fn read(path: &str) -> Fallible<Value> {
    let mut policy = serde_json::from_str(&fs::read_to_string(path)?)?;
    name_self(&mut policy);
    Ok(policy)
}

/// What a policy's `self` is compiled to, a number that no process has; the process's own takes its place when the
/// filter is installed.
const SELF: u32 = 0xfeed_5e1f;

/// Replaces `"self"` by [`SELF`].
fn name_self(value: &mut Value) {
    match value {
        Value::String(text) if text == "self" => *value = Value::from(SELF),
        Value::Array(items) => items.iter_mut().for_each(name_self),
        Value::Object(items) => items.values_mut().for_each(name_self),
        _ => {}
    }
}

/// A debug build traps first, so that the process can name the call before it dies of it; see `src/violation.rs`.
fn trap(policy: &mut Value) {
    for section in policy.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let action = section.get_mut("mismatch_action");
        if let Some(action) = action.filter(|action| *action == "kill_process") {
            *action = Value::from("trap");
        }
    }
}

fn rules(policy: &Value, section: &str) -> Fallible<Vec<Value>> {
    policy
        .get(section)
        .and_then(|s| s.get("filter"))
        .and_then(Value::as_array)
        .cloned()
        .ok_or_else(|| format!("the policy has no filter '{section}'").into())
}

/// An allowlist. Whatever `refuse` names, with the arguments that it names, is let through here and answered with an error
/// there: of two filters the kernel takes the stricter answer, and killing is stricter than an error.
fn emit(
    source: &mut String,
    name: &str,
    policy: &Value,
    section: &str,
    rules: &[Value],
) -> Fallible<()> {
    let mut all = rules.to_vec();
    for refusal in self::rules(policy, "refuse")? {
        // A call that is allowed whatever its arguments are cannot be allowed any further.
        let allowed = |rule: &Value| {
            rule.get("syscall") == refusal.get("syscall") && rule.get("args").is_none()
        };
        if !all.iter().any(allowed) {
            all.push(refusal);
        }
    }
    write_filter(source, name, policy, section, all)
}

fn emit_refusals(source: &mut String, name: &str, policy: &Value) -> Fallible<()> {
    write_filter(source, name, policy, "refuse", rules(policy, "refuse")?)
}

fn write_filter(
    source: &mut String,
    name: &str,
    policy: &Value,
    section: &str,
    rules: Vec<Value>,
) -> Fallible<()> {
    let mut filter = policy.get(section).cloned().unwrap_or_default();
    if let Some(object) = filter.as_object_mut() {
        object.insert("filter".to_owned(), Value::Array(rules));
    }
    let text = Value::Object(Map::from_iter([(name.to_owned(), filter)])).to_string();
    let arch = TargetArch::try_from(env::var("CARGO_CFG_TARGET_ARCH")?.as_str())?;
    let compiled: BTreeMap<String, BpfProgram> = compile_from_json(text.as_bytes(), arch)?
        .into_iter()
        .collect();
    for (name, program) in compiled {
        writeln!(
            source,
            "static {}: [libc::sock_filter; {}] = [",
            name.to_uppercase(),
            program.len()
        )?;
        for i in program {
            writeln!(
                source,
                "    libc::sock_filter {{ code: {}, jt: {}, jf: {}, k: {} }},",
                i.code, i.jt, i.jf, i.k
            )?;
        }
        writeln!(source, "];")?;
    }
    Ok(())
}
