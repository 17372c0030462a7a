"""S3 by moto's server: `moto_server.py MARK PORT BUCKET`, with the bucket made. MARK tells the
process apart from others in the list of processes."""

import os
import sys
import threading

os.environ.setdefault("AWS_ACCESS_KEY_ID", "tidemill")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "tidemill-secret")

import boto3
from moto.server import ThreadedMotoServer

_, _mark, port, bucket = sys.argv
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(port), verbose=False)
server.start()
s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
s3.create_bucket(Bucket=bucket)
threading.Event().wait()
