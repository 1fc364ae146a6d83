//! The wire is frozen: any change of the protocol file shows up as a difference to `schema/v<N>.txt`.

use std::fmt::Write;
use std::path::Path;

use protobuf_parse::Parser;

/// `protobuf_parse` re-exports no descriptor types, so they are only ever named through inference.
fn dump() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let parsed = Parser::new()
        .pure()
        .include(&root)
        .input(root.join("agent.proto"))
        .parse_and_typecheck()
        .unwrap();
    let file = &parsed.file_descriptors[0];

    let mut out = String::new();
    let line = |out: &mut String, text: String| writeln!(out, "{text}").unwrap();
    line(
        &mut out,
        format!("protocol {}", bulkhead_protocol::PROTOCOL_VERSION),
    );
    line(
        &mut out,
        format!("control port {}", bulkhead_protocol::CONTROL_PORT),
    );
    line(
        &mut out,
        format!("first stream port {}", bulkhead_protocol::FIRST_STREAM_PORT),
    );
    line(&mut out, format!("package {}", file.package()));

    for service in &file.service {
        for method in &service.method {
            line(
                &mut out,
                format!(
                    "method {}.{} {} -> {}",
                    service.name(),
                    method.name(),
                    method.input_type(),
                    method.output_type()
                ),
            );
        }
    }
    let mut messages: Vec<_> = file
        .message_type
        .iter()
        .map(|message| (message.name().to_owned(), message))
        .collect();
    let mut enums: Vec<_> = file
        .enum_type
        .iter()
        .map(|one| (one.name().to_owned(), one))
        .collect();
    let mut next = 0;
    while let Some((path, message)) = messages.get(next).cloned() {
        next += 1;
        messages.extend(
            message
                .nested_type
                .iter()
                .map(|m| (format!("{path}.{}", m.name()), m)),
        );
        enums.extend(
            message
                .enum_type
                .iter()
                .map(|e| (format!("{path}.{}", e.name()), e)),
        );
        line(&mut out, format!("message {path}"));
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            line(
                &mut out,
                format!(
                    "  {} {} {:?} {:?} {}",
                    field.number(),
                    field.name(),
                    field.label(),
                    field.type_(),
                    field.type_name()
                )
                .trim_end()
                .to_owned(),
            );
        }
    }
    for (path, one) in enums {
        line(&mut out, format!("enum {path}"));
        for value in &one.value {
            line(&mut out, format!("  {} {}", value.number(), value.name()));
        }
    }
    out
}

#[test]
fn the_wire_is_what_the_frozen_schema_says() {
    let version = bulkhead_protocol::PROTOCOL_VERSION;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/v{version}.txt"));
    let now = dump();
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let frozen = std::fs::read_to_string(&path).unwrap_or_default();
    if now == frozen {
        return;
    }
    let removed = frozen
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line));
    let added = now
        .lines()
        .filter(|line| !frozen.lines().any(|other| other == *line));
    let difference: String = removed
        .map(|line| format!("- {line}\n"))
        .chain(added.map(|line| format!("+ {line}\n")))
        .collect();
    panic!(
        "the protocol differs from {}:\n{difference}\n\
         If an old peer may ignore the change, freeze it:\n    \
         BULKHEAD_BLESS=1 cargo test -p bulkhead-protocol --test schema\n\
         Otherwise raise PROTOCOL_VERSION first. See the documentation of crate bulkhead-protocol.",
        path.display()
    );
}

#[test]
fn the_dump_names_every_part_of_the_wire() {
    let dump = dump();
    for expected in [
        "method Agent.StartProcess .bulkhead.agent.v1.StartProcessRequest -> .bulkhead.agent.v1.StartProcessResponse",
        "message StartProcessRequest\n  1 container_id LABEL_OPTIONAL TYPE_STRING",
        "LABEL_REPEATED",
        "enum StartFailure.Kind",
    ] {
        assert!(dump.contains(expected), "{expected} is missing in:\n{dump}");
    }
}
