// What a participant computes off the chain, written from docs/PROTOCOL.md: an update's bytes, their Merkle root and the
// hashes that are committed to. Numbers are little endian.

import { blake2AsU8a } from '@polkadot/util-crypto';
import { hexToU8a, stringToU8a, u8aConcat, u8aToHex } from '@polkadot/util';

/// A layout of one tensor with one value: the smallest model.
export const LAYOUT = [1n];
/// Values kept of 4096.
export const KEEP = 64;

const blake2 = (...parts) => blake2AsU8a(u8aConcat(...parts));
const number = (value, bytes) => {
  const out = new Uint8Array(bytes);
  for (let at = 0, left = BigInt(value); at < bytes; at += 1, left >>= 8n) {
    out[at] = Number(left & 255n);
  }
  return out;
};

/// A chunk that holds one value: a scale of 1 in bf16, a code of two bits, and a position whose gap is 0, which is one bit.
export const CHUNK = Uint8Array.of(0x80, 0x3f, 0b100);
/// Version, values kept, number of chunks, the chunk's length less its least, and the chunk.
const PAYLOAD = u8aConcat(number(1, 1), number(KEEP, 2), number(1, 4), number(0, 1), CHUNK);

/// A Merkle tree of one leaf: the leaf is the top.
const leaf = blake2(Uint8Array.of(0), number(0, 4), CHUNK);
const root = blake2(Uint8Array.of(2), number(1, 4), leaf);

/// What opens the commitment to the payload, from a state, under a salt.
export const opening = (baseStateRoot, salt) => ({
  payload_root: u8aToHex(root),
  chunk_count: 1,
  byte_len: BigInt(PAYLOAD.length),
  base_state_root: baseStateRoot,
  salt,
});

/// What a hot key signs to take part for a cold key: `role` is 0 for a miner and 1 for a validator.
export const consent = (genesis, run, role, coldKey) =>
  blake2(
    stringToU8a('gauntlet/hot-key-consent/1'),
    hexToU8a(genesis),
    number(run, 4),
    number(role, 1),
    coldKey,
  );

/// The hash that a miner commits to.
export const commitment = (genesis, run, window, hotKey, opened) =>
  u8aToHex(
    blake2(
      stringToU8a('gauntlet/update-commitment/1'),
      hexToU8a(genesis),
      number(run, 4),
      number(window, 8),
      hotKey,
      hexToU8a(opened.payload_root),
      number(opened.chunk_count, 4),
      number(opened.byte_len, 8),
      hexToU8a(opened.base_state_root),
      hexToU8a(opened.salt),
    ),
  );

/// The hash that a validator commits to before it says what it could fetch: of a bitmap of less than 64 bytes.
export const attestationCommitment = (genesis, run, window, hotKey, attested) =>
  u8aToHex(
    blake2(
      stringToU8a('gauntlet/attestation-commitment/1'),
      hexToU8a(genesis),
      number(run, 4),
      number(window, 8),
      hotKey,
      number(attested.bitmap.length << 2, 1),
      attested.bitmap,
      hexToU8a(attested.state_root),
      hexToU8a(attested.salt),
    ),
  );

/// The hash that a validator commits to: of less than 64 evaluations, measured as this version says.
export const scoreCommitment = (genesis, run, window, hotKey, evaluations, version, salt) =>
  u8aToHex(
    blake2(
      stringToU8a('gauntlet/score-commitment/1'),
      hexToU8a(genesis),
      number(run, 4),
      number(window, 8),
      hotKey,
      number(evaluations.length << 2, 1),
      ...evaluations.map((one) =>
        u8aConcat(
          number(one.uid, 2),
          number(one.own_before, 4),
          number(one.own_after, 4),
          number(one.random_before, 4),
          number(one.random_after, 4),
        ),
      ),
      number(version, 4),
      hexToU8a(salt),
    ),
  );
