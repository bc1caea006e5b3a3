import { Http2Error } from './error.ts';
import { DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, MAX_WINDOW, SETTING } from './frames.ts';

/** What of a peer's SETTINGS matters to a tunnel. */
export interface PeerSettings {
  readonly initialWindowSize: number;
  readonly maxFrameSize: number;
  readonly maxConcurrentStreams: number;
}

/** What holds until the peer has spoken; 100 streams, because it will hardly allow fewer. */
export const INITIAL_PEER_SETTINGS: PeerSettings = {
  initialWindowSize: DEFAULT_WINDOW,
  maxFrameSize: DEFAULT_FRAME_SIZE,
  maxConcurrentStreams: 100,
};

const SETTING_SIZE = 6;
const MAX_FRAME_SIZE_LIMIT = 0xffffff;

/**
 * Settings after a SETTINGS frame (RFC 9113, 6.5.2); identifiers that do not matter are passed over.
 * @throws Http2Error
 */
export function applySettings(previous: PeerSettings, payload: Buffer): PeerSettings {
  if (payload.length % SETTING_SIZE !== 0) throw new Http2Error('length of SETTINGS', 'FRAME_SIZE_ERROR');
  const settings = { ...previous };
  for (let at = 0; at < payload.length; at += SETTING_SIZE) {
    const value = payload.readUInt32BE(at + 2);
    switch (payload.readUInt16BE(at)) {
      case SETTING.INITIAL_WINDOW_SIZE:
        if (value > MAX_WINDOW) throw new Http2Error(`initial window of ${value}`, 'FLOW_CONTROL_ERROR');
        settings.initialWindowSize = value;
        break;
      case SETTING.MAX_FRAME_SIZE:
        if (value < DEFAULT_FRAME_SIZE || value > MAX_FRAME_SIZE_LIMIT) {
          throw new Http2Error(`frame size of ${value}`, 'PROTOCOL_ERROR');
        }
        settings.maxFrameSize = value;
        break;
      case SETTING.MAX_CONCURRENT_STREAMS:
        settings.maxConcurrentStreams = value;
        break;
      case SETTING.ENABLE_PUSH:
        if (value > 1) throw new Http2Error(`ENABLE_PUSH of ${value}`, 'PROTOCOL_ERROR');
        break;
    }
  }
  return settings;
}
