//! What is stored stays readable: a golden encoding of a value of every stored type.
//!
//! The values are made from the types' descriptions in the metadata: every enum in each of its variants, every list with
//! two elements, numbers that count up. The storage decodes them as it would decode a running chain's. An encoding that
//! differs from the golden one would be misread on such a chain, so a change of one comes with a migration and a new
//! storage version. `GAUNTLET_WRITE_ENCODINGS=1` then writes the golden file anew.

use std::{fmt::Write, path::Path};

use codec::{Compact, Encode};
use frame_metadata::{
    v14::{RuntimeMetadataV14, StorageEntryMetadata, StorageEntryType, StorageHasher},
    RuntimeMetadata,
};
use frame_support::{
    traits::{GetStorageVersion, StorageVersion, TryDecodeEntireStorage},
    Blake2_128Concat, StorageHasher as _, Twox64Concat,
};
use runtime::{Gauntlet, Runtime};
use scale_info::{form::PortableForm, PortableRegistry, TypeDef, TypeDefPrimitive};
use sp_io::hashing::twox_128;

/// The pallet whose stored types are golden.
const PALLET: &str = "Gauntlet";
/// The elements of a list in a sample.
const LIST_LEN: u32 = 2;
/// The environment's variable that has the golden file written anew.
const WRITE: &str = "GAUNTLET_WRITE_ENCODINGS";

#[test]
fn every_stored_type_is_encoded_as_ever() {
    let mut lines = format!("{:?}\n", storage_version());
    for sample in samples() {
        writeln!(
            lines,
            "{} {} {}",
            sample.item,
            hex::encode(&sample.key),
            hex::encode(&sample.value)
        )
        .expect("text can be written to memory");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/encodings.txt");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &lines).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> =
        lines.lines().filter(|line| !golden.lines().any(|old| old == *line)).collect();
    let gone: Vec<_> =
        golden.lines().filter(|old| !lines.lines().any(|line| line == *old)).collect();
    assert!(
        changed.is_empty() && gone.is_empty(),
        "stored types have other encodings than {}. A chain that runs would misread what it stored: write a migration in \
         pallet-gauntlet/src/migrations.rs, raise the storage version, and run this test with {WRITE}=1.\n\
         golden: {gone:#?}\nnow: {changed:#?}",
        path.display()
    );
}

#[test]
fn storage_decodes_what_the_metadata_describes() {
    for round in 0..rounds() {
        sp_io::TestExternalities::default().execute_with(|| {
            let of_round = samples().into_iter().filter(|sample| sample.round == round);
            let stored =
                of_round.map(|sample| sp_io::storage::set(&sample.key, &sample.value)).count();
            match Gauntlet::try_decode_entire_state() {
                Ok(bytes) => assert!(bytes > 0 || stored == 0),
                Err(errors) => panic!("{errors:#?}"),
            }
        });
    }
}

/// The version that the pallet's code says its storage has.
fn storage_version() -> StorageVersion {
    Gauntlet::in_code_storage_version()
}

/// A value that a storage item may hold, and where.
struct Sample {
    item: String,
    key: Vec<u8>,
    value: Vec<u8>,
    round: usize,
}

/// A sample of every item of the pallet in every round, the same ones told once.
fn samples() -> Vec<Sample> {
    let RuntimeMetadataV14 { types, pallets, .. } = metadata();
    let pallet = pallets.into_iter().find(|pallet| pallet.name == PALLET);
    let storage = pallet.and_then(|pallet| pallet.storage).expect("the pallet stores something");
    let mut samples: Vec<Sample> = Vec::new();
    for round in 0..rounds() {
        for entry in &storage.entries {
            let sample = sample(&types, &storage.prefix, entry, round);
            let told = samples.iter().any(|old| old.key == sample.key && old.value == sample.value);
            if !told {
                samples.push(sample);
            }
        }
    }
    samples.sort_by(|a, b| (&a.item, a.round).cmp(&(&b.item, b.round)));
    samples
}

fn metadata() -> RuntimeMetadataV14 {
    match Runtime::metadata().1 {
        RuntimeMetadata::V14(metadata) => metadata,
        other => panic!("the runtime's default metadata has version {}", other.version()),
    }
}

/// As many as the largest of the pallet's stored enums has variants.
fn rounds() -> usize {
    let RuntimeMetadataV14 { types, pallets, .. } = metadata();
    let pallet = pallets.into_iter().find(|pallet| pallet.name == PALLET);
    let entries = pallet.and_then(|pallet| pallet.storage).expect("it stores something").entries;
    let of_entry = entries.iter().map(|entry| {
        let mut sampler = Sampler { types: &types, round: 0, counter: 0, variants: 1 };
        let value = match &entry.ty {
            StorageEntryType::Plain(value) | StorageEntryType::Map { value, .. } => value.id,
        };
        sampler.write(value, &mut Vec::new());
        sampler.variants
    });
    of_entry.max().unwrap_or(1)
}

fn sample(
    types: &PortableRegistry,
    prefix: &str,
    entry: &StorageEntryMetadata<PortableForm>,
    round: usize,
) -> Sample {
    let mut sampler = Sampler { types, round, counter: 0, variants: 1 };
    let mut key = [twox_128(prefix.as_bytes()), twox_128(entry.name.as_bytes())].concat();
    let value_type = match &entry.ty {
        StorageEntryType::Plain(value) => value.id,
        StorageEntryType::Map { hashers, key: key_type, value } => {
            for (part, hasher) in sampler.key_parts(key_type.id, hashers.len()).iter().zip(hashers)
            {
                key.extend(hashed(part, hasher));
            }
            value.id
        }
    };
    let mut value = Vec::new();
    sampler.write(value_type, &mut value);
    Sample { item: entry.name.clone(), key, value, round }
}

fn hashed(key: &[u8], hasher: &StorageHasher) -> Vec<u8> {
    match hasher {
        StorageHasher::Twox64Concat => Twox64Concat::hash(key),
        StorageHasher::Blake2_128Concat => Blake2_128Concat::hash(key),
        StorageHasher::Identity => key.to_vec(),
        other => panic!("{other:?} loses the key; no item of the pallet has it"),
    }
}

/// Writes values of types as the metadata describes them.
struct Sampler<'a> {
    types: &'a PortableRegistry,
    /// Chooses the variants of enums.
    round: usize,
    /// The last byte of a number that was written.
    counter: u8,
    /// The most variants that an enum had so far.
    variants: usize,
}

impl Sampler<'_> {
    /// The parts of a key, each encoded.
    fn key_parts(&mut self, key: u32, hashers: usize) -> Vec<Vec<u8>> {
        let types = self.types;
        let parts = match &types.resolve(key).expect("the type is registered").type_def {
            TypeDef::Tuple(tuple) if hashers > 1 => {
                tuple.fields.iter().map(|part| part.id).collect()
            }
            _ => vec![key],
        };
        let encode = |id| {
            let mut bytes = Vec::new();
            self.write(id, &mut bytes);
            bytes
        };
        parts.into_iter().map(encode).collect()
    }

    fn write(&mut self, id: u32, out: &mut Vec<u8>) {
        let types = self.types;
        match &types.resolve(id).expect("the type is registered").type_def {
            TypeDef::Composite(record) => {
                self.write_all(record.fields.iter().map(|f| f.ty.id), out)
            }
            TypeDef::Tuple(tuple) => self.write_all(tuple.fields.iter().map(|field| field.id), out),
            TypeDef::Variant(variants) => {
                self.variants = self.variants.max(variants.variants.len());
                let chosen = &variants.variants[self.round % variants.variants.len()];
                out.push(chosen.index);
                self.write_all(chosen.fields.iter().map(|field| field.ty.id), out);
            }
            TypeDef::Sequence(list) => {
                Compact(LIST_LEN).encode_to(out);
                self.write_all((0..LIST_LEN).map(|_| list.type_param.id), out);
            }
            TypeDef::Array(array) => {
                self.write_all((0..array.len).map(|_| array.type_param.id), out)
            }
            TypeDef::Compact(_) => Compact(u32::from(self.count())).encode_to(out),
            TypeDef::Primitive(TypeDefPrimitive::Bool) => out.push(self.count() % 2),
            TypeDef::Primitive(primitive) => {
                let number: Vec<u8> = (0..width(primitive)).map(|_| self.count()).collect();
                out.extend(number);
            }
            TypeDef::BitSequence(_) => panic!("no stored type has a sequence of bits"),
        }
    }

    fn write_all(&mut self, ids: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
        ids.for_each(|id| self.write(id, out));
    }

    fn count(&mut self) -> u8 {
        self.counter = self.counter.wrapping_add(1);
        self.counter
    }
}

/// The bytes of a number.
fn width(primitive: &TypeDefPrimitive) -> usize {
    match primitive {
        TypeDefPrimitive::U8 | TypeDefPrimitive::I8 => 1,
        TypeDefPrimitive::U16 | TypeDefPrimitive::I16 => 2,
        TypeDefPrimitive::U32 | TypeDefPrimitive::I32 => 4,
        TypeDefPrimitive::U64 | TypeDefPrimitive::I64 => 8,
        TypeDefPrimitive::U128 | TypeDefPrimitive::I128 => 16,
        TypeDefPrimitive::U256 | TypeDefPrimitive::I256 => 32,
        other => panic!("no stored type has a {other:?}"),
    }
}
