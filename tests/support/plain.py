"""What a client of plain HTTP is given to verify certificates with: an SSL context that trusts nobody.

httpx reads every certificate authority of the machine for each client that it makes, `httpx.get` included, whatever the
URL: some 25 ms of processor time, more than most requests take. `verify=NO_TLS` spares that; nothing could be asked
over TLS with it.
"""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
