// One run from its creation to a claim and past an upgrade of the runtime, told once and played through each client.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { hexToU8a, u8aToHex } from '@polkadot/util';

import { CHUNK, attestationCommitment, commitment, consent, opening, scoreCommitment } from './gauntlet.mjs';

/// The call that creates a small run, as the runtime encodes it; a test of `runtime-tests` keeps it so.
const CREATE_RUN = hexToU8a(readFileSync(new URL('create-run.hex', import.meta.url), 'utf8').trim());
/// Blocks until the run starts: time to register in.
const LEAD = 12;
/// What the validator stakes.
const STAKE = 1_000n * 10n ** 12n;
/// What the owner funds the run with, and how much of it a window may spend.
const FUNDS = 1_000n * 10n ** 12n;
const PER_WINDOW = 10n * 10n ** 12n;
/// The state from which everybody starts and that the validator attests.
const STATE = `0x${'00'.repeat(32)}`;
/// What the validator measures: losses of 4 nats fall, more on the miner's own samples.
const NATS = 4 << 24;
const EVALUATIONS = [
  { uid: 0, own_before: NATS, own_after: NATS - 60_000, random_before: NATS, random_after: NATS - 30_000 },
];
/// The version of what validators measure, as the run's settings have it.
const SCORE_VERSION = 1;
/// The longest wait for a phase or for pay.
const PATIENCE = 180_000;

const salt = (byte) => `0x${byte.repeat(32)}`;
const pause = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

/// Waits until a view shows what is waited for, and returns what it shows.
const until = async (what, look) => {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await pause(100);
  }
};

/// A run that one client plays, and what its scenes share.
export class Story {
  constructor(client, keys) {
    this.client = client;
    this.keys = keys;
  }

  say(line) {
    console.log(`${this.client.name}: ${line}`);
  }

  /// The fields of the event of that name.
  event(events, name) {
    const found = events.find((event) => event.pallet === 'gauntlet' && event.name === name);
    const names = events.map((event) => `${event.pallet}.${event.name}`);
    assert.ok(found, `no event ${name} in ${names}`);
    return found.data;
  }

  /// Sees a call refused by the pallet's error of that name.
  async refused(refusal, sent) {
    await assert.rejects(sent, { pallet: 'gauntlet', refusal });
    this.say(`refused by name: ${refusal}`);
  }

  /// Waits for the next block. Work of a window is free, so the node's pool refuses what would fail, and it looks at a new
  /// block a little later than the node shows it: who sends in the first block of a phase may be too early for it.
  async nextBlock() {
    const { block } = await this.client.head();
    await until('there is another block', async () => ((await this.client.head()).block > block ? true : undefined));
  }

  /// Waits for a phase of a window, or of any, and returns where the run was a block before.
  async phase(wanted, window) {
    const found = await until(`${wanted} of window ${window ?? 'any'}`, async () => {
      const { moment } = await this.client.view('phase', this.run);
      if (moment?.phase.type !== wanted) return undefined;
      return window === undefined || Number(moment.window) === window ? moment : undefined;
    });
    await this.nextBlock();
    return found;
  }

  /// Waits for a phase of a window's scores, and a block.
  async scorePhase(wanted, window) {
    await until(`${wanted} of the scores of window ${window}`, async () => {
      const { moment } = await this.client.view('phase', this.run);
      const now = Number(moment.window) === window + 1 && moment.score_phase.type === wanted;
      return now ? moment : undefined;
    });
    await this.nextBlock();
  }

  /// A run is created from an encoded call that the client takes apart by its names, and two join; refusals have names.
  async begin() {
    const { client, keys } = this;
    const { block } = await client.head();
    const create = await client.decoded(CREATE_RUN);
    create.settings.schedule.start_block = block + LEAD;
    const { run } = this.event(await client.send(keys.owner, 'create_run', create), 'RunCreated');
    this.run = Number(run);
    await client.send(keys.owner, 'fund_run', { run, amount: FUNDS, per_window: PER_WINDOW });
    this.say(`created and funded run ${run}`);
    assert.equal((await client.view('phase', this.run)).moment, undefined);

    const signed = (hot, role, cold) => {
      const message = consent(client.genesis, this.run, role, cold.publicKey);
      return { type: 'Sr25519', value: u8aToHex(hot.sign(message)) };
    };
    const miner = {
      run: this.run,
      hot: keys.minerHot.address,
      proof: signed(keys.minerHot, 0, keys.minerCold),
      max_price: await client.view('next_price', this.run),
    };
    const validator = {
      run: this.run,
      hot: keys.validatorHot.address,
      proof: signed(keys.validatorHot, 1, keys.validatorCold),
      stake: STAKE,
    };
    const nowhere = { run: 4_000, account: keys.owner.address };
    await this.refused('RunUnknown', client.send(keys.owner, 'claim', nowhere));
    const others = { ...miner, proof: validator.proof };
    await this.refused('HotKeyProofInvalid', client.send(keys.minerCold, 'register_miner', others));
    const poor = client.send(keys.validatorCold, 'register_validator', { ...validator, stake: 1n });
    await this.refused('StakeTooLow', poor);
    await client.send(keys.minerCold, 'register_miner', miner);
    await client.send(keys.validatorCold, 'register_validator', validator);
    const graph = await client.view('metagraph', this.run, 0);
    assert.deepEqual([graph.miners.length, graph.validators.length], [1, 1]);
    this.say('registered a miner and a validator');
  }

  /// All work of the next window, each call in the phase that the chain names, up to the pay that it brings.
  async playWindow() {
    const { client, keys, run } = this;
    await this.phase('Apply');
    const window = Number((await this.phase('Commit')).window);
    const of = { run, window: BigInt(window) };

    const opened = opening(STATE, salt('11'));
    const hash = commitment(client.genesis, run, window, keys.minerHot.publicKey, opened);
    await client.send(keys.minerHot, 'commit_update', { ...of, hash });
    await this.phase('Reveal', window);
    const chunks = [{ index: 0, chunk: CHUNK, proof: [] }];
    await client.send(keys.minerHot, 'reveal_update', { ...of, opening: opened, chunks });
    this.say(`committed and revealed an update in window ${window}`);

    await this.phase('AttestCommit', window);
    const attested = { bitmap: Uint8Array.of(1), state_root: STATE, salt: salt('33') };
    const said = attestationCommitment(client.genesis, run, window, keys.validatorHot.publicKey, attested);
    await client.send(keys.validatorHot, 'commit_attestation', { ...of, hash: said });
    await this.phase('AttestReveal', window);
    await client.send(keys.validatorHot, 'reveal_attestation', { ...of, ...attested });
    await this.phase('Apply', window);
    assert.deepEqual((await client.view('accepted_set', run, of.window)).map(Number), [0]);
    this.say('attested; the update is accepted');

    await this.scorePhase('Commit', window);
    const version = SCORE_VERSION;
    const scores = [client.genesis, run, window, keys.validatorHot.publicKey, EVALUATIONS, version, salt('22')];
    await client.send(keys.validatorHot, 'commit_scores', { ...of, hash: scoreCommitment(...scores), version });
    await this.scorePhase('Reveal', window);
    const revealed = { ...of, evaluations: EVALUATIONS, salt: salt('22'), version };
    await client.send(keys.validatorHot, 'reveal_scores', revealed);
    await this.scorePhase('Settle', window);
    this.played = of.window;
    this.say('scored');
  }

  /// The miner's pay is claimed once it is due.
  async claim() {
    const { client, keys, run } = this;
    const account = keys.minerCold.address;
    const due = await until('pay is due', async () => {
      const { now } = await client.view('claimable', run, account);
      return now > 0n ? now : undefined;
    });
    const before = await client.free(account);
    const claimed = this.event(await client.send(keys.owner, 'claim', { run, account }), 'Claimed');
    assert.equal(claimed.amount, due);
    assert.equal(await client.free(account), before + due);
    await this.refused('NothingClaimable', client.send(keys.owner, 'claim', { run, account }));
    const pay = await client.view('pay', run, this.played);
    const own = pay.miners.map(([uid, amount]) => [Number(uid), amount]);
    assert.deepEqual(own, [[0, due]]);
    const seat = { type: 'Miner', value: 0 };
    const history = await client.view('pay_history', run, seat, 0n, this.played);
    assert.deepEqual(history.at(-1), { window: this.played, amount: due });
    this.say(`claimed ${due} planck, as window ${this.played} paid`);
  }

  /// Goes on with the runtime after an upgrade.
  async upgraded() {
    this.client = await this.client.upgraded();
  }

  /// The miner's standing as the chain keeps it.
  standing() {
    return this.client.view('standing', this.run, 0);
  }
}
