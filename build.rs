//! Compiles the protobuf files without `protoc`: the Rust types, the descriptor set (for reflection), and the table of
//! messages by which `wire` checks client frames strictly.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;

/// Messages of others that reflection tells too.
const REFLECTED: &str = "src/edge/grpc/reflected";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed={REFLECTED}");
    let store = "tidelog/store/v1/rows.proto";
    let public = ["tidelog/v1/event.proto", "tidelog/v1/session.proto", "tidelog/v1/broker.proto", "tidelog/v1/admin.proto", "tidelog/v1/access.proto"];
    let set = protox::compile([store].iter().chain(&public), ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // What reflection tells: how rows are stored is nobody's business.
    let mut told = set.clone();
    told.file.retain(|file| file.package() == "tidelog.v1");
    told.file.extend(protox::compile(["google/rpc/error_details.proto"], [REFLECTED])?.file);
    std::fs::write(out.join("descriptors.bin"), told.encode_to_vec())?;

    // The table: every message of package tidelog.v1 with its fields. Nested messages and groups are not used there.
    const MESSAGE: i32 = 11;
    const ENUM: i32 = 14;
    let files = || set.file.iter().filter(|file| file.package() == "tidelog.v1");
    let messages: Vec<_> = files().flat_map(|file| &file.message_type).collect();
    let index: BTreeMap<String, usize> = messages.iter().enumerate().map(|(i, m)| (format!(".tidelog.v1.{}", m.name()), i)).collect();
    let enums: BTreeMap<String, Vec<i32>> =
        files().flat_map(|file| &file.enum_type).map(|e| (format!(".tidelog.v1.{}", e.name()), e.value.iter().map(|v| v.number()).collect())).collect();
    let mut table = String::from("static MESSAGES: &[MessageRule] = &[\n");
    for message in &messages {
        writeln!(table, "    MessageRule {{ name: {:?}, fields: &[", message.name())?;
        for field in &message.field {
            let kind = match field.r#type.unwrap_or_default() {
                MESSAGE => format!("Kind::Message({})", index[field.type_name()]),
                ENUM => format!("Kind::Enum(&{:?})", enums[field.type_name()]),
                3 => "Kind::I64".to_owned(),
                4 => "Kind::U64".to_owned(),
                13 => "Kind::U32".to_owned(),
                8 => "Kind::Bool".to_owned(),
                9 => "Kind::Text".to_owned(),
                12 => "Kind::Bytes".to_owned(),
                1 => "Kind::Double".to_owned(),
                other => return Err(format!("{}.{} has type {other}, which the strict reader does not know", message.name(), field.name()).into()),
            };
            let repeated = field.label.unwrap_or_default() == 3;
            let oneof = if field.proto3_optional() { None } else { field.oneof_index };
            writeln!(
                table,
                "        FieldRule {{ number: {}, name: {:?}, kind: {kind}, repeated: {repeated}, oneof: {oneof:?} }},",
                field.number(),
                field.name()
            )?;
        }
        writeln!(table, "    ] }},")?;
    }
    table.push_str("];\n");
    std::fs::write(out.join("strict.rs"), table)?;

    prost_build::Config::new().btree_map(["."]).bytes([".tidelog.v1"]).disable_comments([".tidelog.v1"]).compile_fds(set)?;
    Ok(())
}
