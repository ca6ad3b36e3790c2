"""Uploads a file of zeros with requests: upload.py URL KEY SIZE"""
import sys
import tempfile

import requests

url, key, size = sys.argv[1:]
with tempfile.TemporaryFile() as file:
    file.truncate(int(size))
    response = requests.put(url, data=file, headers={"X-API-Key": key}, timeout=250)
print(response.status_code, response.text)
