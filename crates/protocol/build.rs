//! Generates messages, client and server trait from the protocol file, with a parser written in Rust
//! so that building needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/agent.proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    Codegen::new()
        .out_dir(&out)
        .input("proto/agent.proto")
        .include("proto")
        .rust_protobuf()
        // Reflection would cost the agent a third of its size, and nothing here asks for it.
        .rust_protobuf_customize(
            ProtobufCustomize::default()
                .gen_mod_rs(false)
                .lite_runtime(true),
        )
        .customize(Customize {
            async_all: true,
            gen_mod: false,
            ..Customize::default()
        })
        .run()?;
    for name in ["agent.rs", "agent_ttrpc.rs"] {
        let path = out.join(name);
        // Inner attributes are only allowed at the head of a file, and these become modules by include!.
        let text: String = std::fs::read_to_string(&path)?
            .lines()
            .filter(|line| !line.starts_with("#![") && !line.starts_with("//!"))
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(&path, text)?;
    }
    Ok(())
}
