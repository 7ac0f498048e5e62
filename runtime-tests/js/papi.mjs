// The chain through polkadot-api, without generated descriptors: names and types are those of the node's metadata.

import WebSocket from 'ws';
import { createClient } from 'polkadot-api';
import { getPolkadotSigner } from 'polkadot-api/signer';
import { getWsProvider } from 'polkadot-api/ws';

const PALLET = 'Gauntlet';

/// The error of a pallet by its names, or whatever else it is.
const failure = (error) => {
  if (error.type !== 'Module') return new Error(JSON.stringify(error));
  const { type: pallet, value } = error.value;
  const name = `${pallet.charAt(0).toLowerCase()}${pallet.slice(1)}`;
  return Object.assign(new Error(`${name}.${value.type}`), { pallet: name, refusal: value.type });
};

export const connect = async (url) => {
  const client = createClient(getWsProvider(url, { websocketClass: WebSocket }));
  const api = client.getUnsafeApi();
  const { genesisHash } = await client.getChainSpecData();

  /// Sends a call of the pallet and waits for the best block that it is in; returns the events by name.
  const send = async (pair, call, args) => {
    const signer = getPolkadotSigner(pair.publicKey, 'Sr25519', (message) => pair.sign(message));
    // The last final block may still be in the phase before that of the call, and would refuse it.
    const at = (await client.getBestBlocks())[0].hash;
    return new Promise((resolve, reject) => {
      const watched = api.tx[PALLET][call](args).signSubmitAndWatch(signer, { at });
      const subscription = watched.subscribe({
        next: (told) => {
          if (told.type !== 'txBestBlocksState' || !told.found) return;
          setTimeout(() => subscription.unsubscribe());
          if (!told.ok) reject(failure(told.dispatchError));
          const named = ({ type, value }) => ({
            pallet: `${type.charAt(0).toLowerCase()}${type.slice(1)}`,
            name: value.type,
            data: value.value,
          });
          resolve(told.events.map(named));
        },
        error: reject,
      });
    });
  };

  /// The arguments of an encoded call of the pallet, by name.
  const decoded = async (encoded) => (await api.txFromCallData(encoded)).decodedCall.value.value;

  const connected = {
    name: 'polkadot-api',
    genesis: genesisHash,
    send,
    view: (name, ...args) => api.view[PALLET][name](...args, { at: 'best' }),
    decoded,
    free: async (address) => (await api.query.System.Account.getValue(address, { at: 'best' })).data.free,
    head: async () => ({ block: (await client.getBestBlocks())[0].number }),
    /// The client for the runtime after an upgrade: the same.
    upgraded: async () => connected,
    close: () => client.destroy(),
  };
  return connected;
};
