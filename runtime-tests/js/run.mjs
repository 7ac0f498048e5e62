// Plays the scenario against a development node, through each client at the same time, and upgrades its runtime in between.
// Usage: node run.mjs GAUNTLET_NODE NEXT_RUNTIME_WASM

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Keyring } from '@polkadot/api';
import { cryptoWaitReady } from '@polkadot/util-crypto';

import * as papi from './papi.mjs';
import * as polkadotJs from './polkadot-js.mjs';
import { Story } from './scenario.mjs';
import { specVersion, upgrade } from './upgrade.mjs';

/// Milliseconds from block to block.
const BLOCK_MILLIS = 400;
/// How long the node may take to listen.
const PATIENCE = 60_000;

/// A port that nothing listens on.
const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/// Waits until the node answers over HTTP.
const answers = async (port, node) => {
  const end = Date.now() + PATIENCE;
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'system_health', params: [] });
  const headers = { 'Content-Type': 'application/json' };
  while (Date.now() < end && node.exitCode === null) {
    const answer = await fetch(`http://127.0.0.1:${port}`, { method: 'POST', headers, body }).catch(() => undefined);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the node does not answer');
};

const [binary, nextRuntime] = process.argv.slice(2);
if (!nextRuntime) throw new Error('usage: node run.mjs GAUNTLET_NODE NEXT_RUNTIME_WASM');
const folder = mkdtempSync(join(tmpdir(), 'gauntlet-js-'));
const log = join(folder, 'node.log');
const port = await freePort();
const output = openSync(log, 'a');
const node = spawn(
  binary,
  [
    ...['--dev', '--block-millis', `${BLOCK_MILLIS}`, '--base-path', folder, '--rpc-port', `${port}`],
    ...['--listen-addr', '/ip4/127.0.0.1/tcp/0', '--no-prometheus', '--no-telemetry', '--no-mdns'],
  ],
  { stdio: ['ignore', output, output] },
);
process.once('exit', () => node.kill('SIGKILL'));

let failed = false;
try {
  await answers(port, node);
  await cryptoWaitReady();
  const keyring = new Keyring({ type: 'sr25519' });
  const keys = (uris) => {
    const [owner, minerCold, minerHot, validatorCold, validatorHot] = uris.map((uri) => keyring.addFromUri(uri));
    return { owner, minerCold, minerHot, validatorCold, validatorHot };
  };
  const url = `ws://127.0.0.1:${port}`;
  // Each has accounts of its own, so that their nonces do not meet.
  const stories = [
    new Story(await polkadotJs.connect(url), keys(['//Ferdie', '//Bob', '//Charlie', '//Dave', '//Eve'])),
    new Story(
      await papi.connect(url),
      keys(['//Alice//stash', '//Bob//stash', '//Charlie//stash', '//Dave//stash', '//Eve//stash']),
    ),
  ];
  const all = (scene) => Promise.all(stories.map(scene));

  // SCENE 1: from a run's creation to the first pay.
  await all((story) => story.begin());
  await all((story) => story.playWindow());
  await all((story) => story.claim());

  // SCENE 2: the runtime is upgraded; what everybody has earned stays.
  const standings = await all((story) => story.standing());
  const version = await specVersion(url);
  await upgrade(url, keyring.addFromUri('//Alice'), readFileSync(nextRuntime));
  assert.equal(await specVersion(url), version + 1);
  await all((story) => story.upgraded());
  assert.deepEqual(await all((story) => story.standing()), standings);
  console.log(`spec_version ${version} was upgraded to ${version + 1}; standings are kept`);

  // SCENE 3: the runs go on.
  await all((story) => story.playWindow());
  await all((story) => story.claim());
  await all((story) => story.client.close());
} catch (error) {
  failed = true;
  console.error(error);
  console.error(readFileSync(log, 'utf8').split('\n').slice(-20).join('\n'));
} finally {
  node.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
