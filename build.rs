//! Compiles the contract. protox parses the proto itself, so no protoc is needed on the machine.

use std::{env, fs, path::PathBuf};

use tonic_prost_build::{Config, configure};

const CONTRACT: &str = "approvals/v1/approvals.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let descriptors = protox::Compiler::new(["proto"])?
        .include_source_info(true)
        .include_imports(true)
        .open_file(CONTRACT)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("approvals.bin"), &descriptors)?;
    let mut config = Config::new();
    // By its name a message finds its descriptor, and its form in JSON.
    config.enable_type_names();
    configure()
        .build_client(true)
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        .compile_fds_with_config(prost::Message::decode(descriptors.as_slice())?, config)?;
    Ok(())
}
