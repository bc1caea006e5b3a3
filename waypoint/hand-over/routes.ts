import type { Offer } from '#ztunnel/hand-over/offer.ts';
import { type HttpRoute, jsonAnswer, textAnswer } from '#ztunnel/http-listener.ts';

/**
 * What a successor asks the socket of the waypoint that it replaces: `POST /hand-over?pod=NAMESPACE/NAME/INSTANCE`, which of its
 * descriptors is the socket that it listens on. The question is that of ztunnels.
 * @param offer undefined: it does not listen
 */
export function handOverRoutes(replica: string, offer: () => Offer | undefined): readonly HttpRoute[] {
  const answer: HttpRoute['answer'] = (query) => {
    const offered = query.get('pod') === replica ? offer() : undefined;
    return offered === undefined ? textAnswer(204, '') : jsonAnswer(200, offered);
  };
  return [{ method: 'POST', path: '/hand-over', answer }];
}
