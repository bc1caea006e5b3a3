import { type DescMessage, fromBinary, type MessageShape } from '@bufbuild/protobuf';
import type { Any, Duration } from '@bufbuild/protobuf/wkt';
import type { FractionalPercent } from '#api/envoy/gen/envoy/type/v3/percent_pb.ts';
import { FractionalPercent_DenominatorType } from '#api/envoy/gen/envoy/type/v3/percent_pb.ts';
import { refuse } from './config-error.ts';
import { refuseUnknownFields } from './known-fields.ts';

const PREFIX = 'type.googleapis.com/';

/**
 * A message of bytes, every field of which is known.
 * @throws ConfigError
 */
export function decodeMessage<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc> {
  let message: MessageShape<Desc>;
  try {
    message = fromBinary(schema, bytes);
  } catch (cause) {
    return refuse(
      `the bytes are no ${schema.name}: ${cause instanceof Error ? cause.message : String(cause)}`,
    );
  }
  refuseUnknownFields(schema, message);
  return message;
}

/** Whether an `Any` holds a message of the schema. */
export function holds(any: Any | undefined, schema: DescMessage): any is Any {
  return any?.typeUrl === PREFIX + schema.typeName;
}

/** The message of an `Any` that {@link holds} it. @throws ConfigError */
export function decodeAny<Desc extends DescMessage>(schema: Desc, any: Any): MessageShape<Desc> {
  return decodeMessage(schema, any.value);
}

/** Name of a message's type, for texts. */
export function typeOf(any: Any | undefined): string {
  return any === undefined ? 'nothing' : any.typeUrl.slice(PREFIX.length);
}

/** Milliseconds; fractions are kept. */
export function toMs(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** 0 to 100. */
export function toPercent(fraction: FractionalPercent | undefined): number {
  if (fraction === undefined) return 0;
  switch (fraction.denominator) {
    case FractionalPercent_DenominatorType.HUNDRED:
      return Math.min(100, fraction.numerator);
    case FractionalPercent_DenominatorType.TEN_THOUSAND:
      return Math.min(100, fraction.numerator / 100);
    case FractionalPercent_DenominatorType.MILLION:
      return Math.min(100, fraction.numerator / 10_000);
    default:
      return refuse(`denominator ${fraction.denominator} is not known`);
  }
}
