// The chain through polkadot.js: names and types are those of the node's metadata.

import { ApiPromise, WsProvider } from '@polkadot/api';
import { isU8a, stringCamelCase, u8aToHex } from '@polkadot/util';

/// A value as polkadot.js takes it: fields in camel case, bytes in hexadecimal, enums by their variant.
const taken = (value) => {
  if (isU8a(value)) return u8aToHex(value);
  if (Array.isArray(value)) return value.map(taken);
  if (value === null || typeof value !== 'object') return value;
  if (typeof value.type === 'string') return { [value.type]: taken(value.value ?? null) };
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [stringCamelCase(name), taken(inner)]),
  );
};

/// A name of a field as `scenario.mjs` has it: polkadot.js gives them in camel case.
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/// A value as `scenario.mjs` reads it: whole numbers are BigInts, fields in snake case, enums `{type, value}`.
const given = (value) => {
  // Before the rest, for an enum without fields is none and empty, too.
  if (typeof value.type === 'string' && Array.isArray(value.defKeys)) {
    return { type: value.type, value: given(value.value) };
  }
  const raw = value.toRawType?.() ?? '';
  if (value.isNone) return undefined;
  if (value.isSome) return given(value.unwrap());
  if (value.isEmpty && raw === 'Null') return undefined;
  if (typeof value.toBigInt === 'function') return value.toBigInt();
  if (Array.isArray(value)) return value.map(given);
  if (value instanceof Map) {
    return Object.fromEntries([...value.entries()].map(([name, inner]) => [snake(name), given(inner)]));
  }
  return value.toJSON();
};

/// The fields of an event by name.
const eventData = ({ data }) =>
  data.names ? Object.fromEntries(data.names.map((name, at) => [snake(name), given(data[at])])) : data.map(given);

export const connect = async (url) => {
  const provider = new WsProvider(url);
  const api = await ApiPromise.create({ provider, noInitWarn: true, throwOnConnect: true });
  const pallet = api.runtimeMetadata.asLatest.pallets.find((one) => one.name.eq('Gauntlet'));

  /// Sends a call of the pallet and waits for the block that it is in, as scripts do; returns the events by name.
  const send = (pair, call, args) =>
    new Promise((resolve, reject) => {
      const { meta } = api.tx.gauntlet[stringCamelCase(call)];
      const named = taken(args);
      const values = meta.args.map(({ name }) => named[stringCamelCase(name.toString())]);
      api.tx.gauntlet[stringCamelCase(call)](...values)
        .signAndSend(pair, ({ status, events, dispatchError }) => {
          if (!status.isInBlock) return;
          if (dispatchError?.isModule) {
            const { section, name } = api.registry.findMetaError(dispatchError.asModule);
            reject(Object.assign(new Error(`${section}.${name}`), { pallet: section, refusal: name }));
          } else if (dispatchError) {
            reject(new Error(dispatchError.toString()));
          } else {
            resolve(events.map(({ event }) => ({ pallet: event.section, name: event.method, data: eventData(event) })));
          }
        })
        .catch(reject);
    });

  /// Asks a view function of the pallet.
  const view = async (name, ...args) => {
    const known = pallet.viewFunctions.find((one) => one.name.eq(name));
    const input = known.inputs.map(({ type }, at) =>
      api.registry.createType(api.registry.createLookupType(type), taken(args[at])).toU8a(),
    );
    const bytes = new Uint8Array(input.flatMap((part) => [...part]));
    const answer = await api.call.runtimeViewFunction.executeViewFunction(known.id, u8aToHex(bytes));
    return given(api.registry.createType(api.registry.createLookupType(known.output), answer.asOk));
  };

  /// The arguments of an encoded call of the pallet, by name.
  const decoded = (encoded) => {
    const { argsEntries } = api.createType('Call', encoded);
    return Object.fromEntries(argsEntries.map(([name, value]) => [snake(name), given(value)]));
  };

  return {
    name: 'polkadot.js',
    genesis: api.genesisHash.toHex(),
    send,
    view,
    decoded,
    free: async (address) => (await api.query.system.account(address)).data.free.toBigInt(),
    head: async () => ({ block: (await api.rpc.chain.getHeader()).number.toNumber() }),
    /// The client for the runtime after an upgrade: polkadot.js 16 reads it without its views and wants a new connection.
    upgraded: async () => {
      await api.disconnect();
      return connect(url);
    },
    close: () => api.disconnect(),
  };
};
