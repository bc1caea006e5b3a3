/** What must not be in a name or value that is written into a head by hand. */
export const MAY_NOT_BE_SENT: RegExp = /[^\t\x20-\x7e\x80-\xff]/;
