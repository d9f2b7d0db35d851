"""Object stores: one interface (`base`), S3 through boto3 (`s3`), a directory (`directory`), `open_store`.

A write is whole or absent, and conditional writes really are: `probe` checks it. What the objects mean is `layout`'s
and their writers' business.
"""
