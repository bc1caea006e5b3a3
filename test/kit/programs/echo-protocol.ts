import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { StringValueSchema } from '@bufbuild/protobuf/wkt';

/** Methods of `echo.Echo`, all unary; the messages are `google.protobuf.StringValue`. */
export const ECHO_METHODS = ['Unary', 'Other', 'Fail'] as const;

export function encodeText(value: string): Buffer {
  return Buffer.from(toBinary(StringValueSchema, create(StringValueSchema, { value })));
}

export function decodeText(bytes: Buffer): string {
  return fromBinary(StringValueSchema, bytes).value;
}
